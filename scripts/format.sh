#!/usr/bin/env bash
# Formats our C++ sources; with --check it changes nothing and fails if something would change.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=(-i)
[ "${1:-}" = --check ] && mode=(--dry-run --Werror)
git ls-files '*.h' '*.cpp' '*.cu' '*.cuh' | xargs -r clang-format "${mode[@]}"
