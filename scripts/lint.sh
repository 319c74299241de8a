#!/usr/bin/env bash
# Checks format and runs clang-tidy over the C++ sources that differ from a commit (default: HEAD), or over all with --all.
# Files that include torch take about 20 seconds each. Needs clang-tidy: scripts/setup.sh --lint installs it.
set -euo pipefail
cd "$(dirname "$0")/.."

scripts/format.sh --check
command -v clang-tidy > /dev/null || { printf 'lint: clang-tidy is missing; run scripts/setup.sh --lint\n' >&2; exit 1; }
cmake --preset release > /dev/null
# clang-tidy cannot read g++'s precompiled header: it includes the same headers itself.
headers='-include torch/nn/module.h -include torch/nn/pimpl.h -include torch/csrc/autograd/custom_function.h'
commands=build/lint
mkdir -p "$commands"
sed -E "s/ -Winvalid-pch//; s/ -fpch-preprocess//; s|-include [^ ]*cmake_pch.hxx|$headers|" build/compile_commands.json > "$commands/compile_commands.json"
if [ "${1:-}" = --all ]; then
  files=$(git ls-files 'src/*.cpp' 'csrc_kernels/*.cpp')
else
  files=$(git diff --name-only --diff-filter=d "${1:-HEAD}" -- 'src/*.cpp' 'csrc_kernels/*.cpp')
fi
[ -n "$files" ] || { printf 'lint: no source differs\n'; exit 0; }
printf '%s\n' "$files" | xargs -P "$(nproc)" -n 1 clang-tidy --quiet -p "$commands"
