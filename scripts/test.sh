#!/usr/bin/env bash
# Installs missing packages, builds the release preset and runs every test through CTest.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }

step "set-up"
scripts/setup.sh
step "configure"
cmake --preset release
step "build"
cmake --build --preset release --parallel "$(nproc)"
step "tests"
OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive ctest --preset release --no-tests=error
