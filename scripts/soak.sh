#!/usr/bin/env bash
# Runs the long reliability test, for a quarter of an hour or a night: every I/O operation of a run under faults, kill -9 and stop
# signals at random times, memory over many steps, the cost of checkpoints. Prints one line per result; tests/fault/README.md
# lists the last results. Needs a finished build. Environment: KILLS (100), AIMED (20), TERMS (30), MEMORY_STEPS (20000),
# RANK_KILLS (50), RANK_STOPS (10), RANK_TERMS (30), COST_STEPS (60), COST_ROUNDS (3).
set -euo pipefail
cd "$(dirname "$0")/.."
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive

step() { printf '\n== %s\n' "$*"; }

step "machine"
printf '%s, %s cores, %s\n' "$(sed -n 's/model name.*: //p' /proc/cpuinfo | head -1)" "$(nproc)" "$(git log -1 --format=%h)"

step "whole processes against a golden run"
python3 tests/fault/run_trials.py build/dsmoe --kills "${KILLS:-100}" --aimed "${AIMED:-20}" --terms "${TERMS:-30}" \
  --memory-steps "${MEMORY_STEPS:-20000}"

step "ranks of a job"
python3 tests/fault/rank_trials.py build/dsmoe --kills "${RANK_KILLS:-50}" --stops "${RANK_STOPS:-10}" --terms "${RANK_TERMS:-30}"
python3 tests/fault/rank_trials.py build/dsmoe --ranks 4 --kills "${RANK_KILLS:-50}" --stops 0 --terms 0

step "every operation of a run under faults"
SECONDS=0
DSMOE_FAULT_STRIDE=1 build/tests/fault/test_fault 2>/dev/null | tail -2
printf '%d s\n' "$SECONDS"

step "cost of a checkpoint every 50 steps"
python3 tests/fault/checkpoint_cost.py build/dsmoe --steps "${COST_STEPS:-60}" --rounds "${COST_ROUNDS:-3}"
