#!/usr/bin/env bash
# Fuzzes every importer under address and undefined-behaviour sanitizers; tests/fuzz/README.md defines failures.
# Usage: scripts/fuzz.sh [SECONDS for each, 60] [SEED of the mutations, 1]
set -euo pipefail
cd "$(dirname "$0")/.."
cmake --preset asan
cmake --build build-asan --target test_fuzz
DSMOE_FUZZ_SECONDS=${1:-60} DSMOE_FUZZ_SEED=${2:-1} UBSAN_OPTIONS=halt_on_error=1 build-asan/tests/fuzz/test_fuzz
