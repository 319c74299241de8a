#!/usr/bin/env bash
# Installs what dsmoe needs to build and run on Debian 12 (x86_64): system packages and the pinned LibTorch wheel.
# Safe to repeat; does nothing that is already done. --lint adds what scripts/lint.sh needs. Other systems: see README.md.
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
  g++ cmake ninja-build ccache git python3 python3-venv clang-format
  libyaml-cpp-dev libspdlog-dev libfmt-dev libsentencepiece-dev libcli11-dev nlohmann-json3-dev
  libxxhash-dev libzstd-dev zlib1g-dev libpcre2-dev libgloo-dev catch2 iproute2
)
[ "${1:-}" = --lint ] && packages+=(clang-tidy)

say() { printf '[setup] %s\n' "$*"; }
fail() { printf '[setup] failed: %s\n' "$*" >&2; exit 1; }

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
done
if [ "${#missing[@]}" -gt 0 ]; then
  [ "$(id -u)" -eq 0 ] || fail "root is needed to install: ${missing[*]}; run 'sudo scripts/setup.sh'"
  say "installing ${missing[*]}"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q || fail "apt-get update; is a Debian mirror reachable?"
  apt-get install -y -q --no-install-recommends "${missing[@]}" || fail "apt-get install ${missing[*]}"
else
  say "system packages: present"
fi

[ "$(uname -m)" = x86_64 ] || fail "the pinned wheels are for x86_64, this machine is $(uname -m)"
stamp=.venv/requirements.sha256
wanted=$(sha256sum scripts/requirements.txt)
if [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
  say "LibTorch 2.11.0: present in .venv"
else
  say "fetching LibTorch 2.11.0 into .venv (544 MB)"
  /usr/bin/python3 -m venv .venv || fail "python3 -m venv .venv"
  .venv/bin/pip install --no-deps --require-hashes --only-binary=:all: -r scripts/requirements.txt \
    || fail "pip install; is the Python index reachable? Python 3.10 to 3.13 is needed"
  printf '%s\n' "$wanted" > "$stamp"
fi
say "done"
