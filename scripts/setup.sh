#!/usr/bin/env bash
# Installs what dsmoe needs to build and run on Debian 12 (x86_64): system packages and the pinned LibTorch wheel.
# Safe to repeat: skips finished steps. --lint adds the tools of scripts/lint.sh, --cuda the libraries that the `cuda` preset
# needs besides a CUDA 13.0 toolkit. Other systems: see README.md.
set -euo pipefail
cd "$(dirname "$0")/.."

lint=false cuda=false
for option in "$@"; do
  case "$option" in
    --lint) lint=true ;;
    --cuda) cuda=true ;;
    *) printf 'usage: setup.sh [--lint] [--cuda], got %s\n' "$option" >&2; exit 2 ;;
  esac
done

packages=(
  g++ cmake ninja-build ccache git python3 python3-venv clang-format
  libyaml-cpp-dev libspdlog-dev libfmt-dev libsentencepiece-dev libcli11-dev nlohmann-json3-dev
  libxxhash-dev libzstd-dev zlib1g-dev libpcre2-dev libgloo-dev catch2 iproute2
)
! $lint || packages+=(clang-tidy)

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

# install_wheels FILE STAMP TEXT: the wheels that FILE pins, into .venv, unless STAMP says that they are there.
install_wheels() {
  local wanted
  wanted=$(sha256sum "$1")
  if [ "$(cat ".venv/$2" 2>/dev/null)" = "$wanted" ]; then
    say "$3: present in .venv"
    return
  fi
  say "fetching $3 into .venv"
  [ -d .venv ] || /usr/bin/python3 -m venv .venv || fail "python3 -m venv .venv"
  .venv/bin/pip install --no-deps --require-hashes --only-binary=:all: -r "$1" \
    || fail "pip install -r $1; is the Python index reachable? Python 3.10 to 3.13 is needed"
  printf '%s\n' "$wanted" > ".venv/$2"
}
install_wheels scripts/requirements.txt requirements.sha256 "LibTorch 2.11.0 (544 MB)"
if $cuda; then
  install_wheels scripts/requirements-cuda.txt requirements-cuda.sha256 "libraries beside a CUDA toolkit (232 MB)"
  toolkit=${CUDAToolkit_ROOT:-/usr/local/cuda}
  [ -x "$toolkit/bin/nvcc" ] || fail "no CUDA toolkit at $toolkit; install 13.0, or name it in CUDAToolkit_ROOT"
  # Some toolkits come with these two.
  if [ ! -f "$toolkit/include/nccl.h" ] || [ ! -f "$toolkit/include/cudnn.h" ]; then
    install_wheels scripts/requirements-nccl.txt requirements-nccl.sha256 "NCCL and cuDNN (563 MB)"
  fi
fi
say "done"
