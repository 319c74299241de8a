#!/usr/bin/env bash
# On a machine with NVIDIA GPUs: builds the `cuda` preset, runs its tests, trains the quick start's model on one GPU beside
# the CPU and on all visible GPUs beside one, and writes what came out to gpu_report.md. Exits 0 if all of it agrees, 1 if
# not, 2 if there is no GPU. Needs a CUDA 13.0 toolkit. Usage: scripts/gpu_selftest.sh [STEPS]
set -euo pipefail
cd "$(dirname "$0")/.."
steps=${1:-60}
report=gpu_report.md

gpus=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null) || gpus=
if [ -z "$gpus" ]; then
  echo "gpu_selftest: no GPU is visible here (nvidia-smi lists none); nothing was run" >&2
  exit 2
fi
n_gpus=$(wc -l <<< "$gpus")

scripts/setup.sh --cuda
cmake --preset cuda
cmake --build --preset cuda
build='build-cuda'
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
failures=0

# row NAME STATUS TEXT: a line of the report.
row() {
  printf '| %s | %s | %s |\n' "$1" "$2" "$3" >> "$report"
  [ "$2" = pass ] || failures=$((failures + 1))
}

{
  printf '# GPU self-test of %s\n\n' "$(git rev-parse --short HEAD)"
  printf '%s GPU(s):\n\n' "$n_gpus"
  printf -- '- %s\n' "${gpus//$'\n'/$'\n'- }"
  printf '\n| check | result | detail |\n| --- | --- | --- |\n'
} > "$report"

if ctest --preset cuda > "$runs/ctest.log" 2>&1; then
  row "test suite" pass "$(grep 'tests passed' "$runs/ctest.log")"
else
  row "test suite" fail "$(grep 'tests passed' "$runs/ctest.log"); see ctest --preset cuda"
fi

# train NAME DEVICE RANKS: prints the losses of every step, in float32.
train() {
  local launch=()
  [ "$3" -eq 1 ] || launch=(launch -n "$3" --)
  "$build/dsmoe" "${launch[@]}" train configs/quickstart.yaml --run_dir="$runs/$1" --device="$2" --train.steps="$steps" \
    --data.train="$runs/data" --data.validation= --train.validate_every=0 --train.accumulation="$n_gpus" \
    --train.log_every=1 --train.compute_dtype=float32 --train.schedule.warmup_steps=10 > "$runs/$1.log" 2>&1 || return 1
  python3 - "$runs/$1/metrics.jsonl" <<'P'
import json, sys
print(*[json.loads(line)["loss"] for line in open(sys.argv[1]) if '"loss"' in line])
P
}

# compare CHECK NAME LOSSES OTHER: two lists of losses, each step within 1e-3 of the other's.
compare() {
  local text
  if text=$(python3 - "$2" "$3" <<'P'
import sys
a, b = ([float(x) for x in text.split()] for text in sys.argv[1:])
worst = max(abs(x - y) / abs(y) for x, y in zip(a, b)) if a and len(a) == len(b) else float("inf")
print(f"{len(a)} steps, last losses {a[-1] if a else None} and {b[-1] if b else None}, largest difference {worst:.2e}")
sys.exit(worst > 1e-3)
P
  ); then row "$1" pass "$text"; else row "$1" fail "$text"; fi
}

speed() {
  python3 -c 'import json, sys; print([json.loads(l)["tokens_per_second"] for l in open(sys.argv[1]) if "tokens_per_second" in l][-1])' \
    "$runs/$1/metrics.jsonl"
}

"$build/dsmoe" tokenize --input data/tinyshakespeare/train.txt --tokenizer bytes --out "$runs/data"
on_cpu=$(train cpu cpu 1) || row "training on the CPU" fail "$(tail -n 1 "$runs/cpu.log")"
if on_gpu=$(train gpu cuda 1); then
  compare "losses of one GPU beside the CPU" "$on_gpu" "$on_cpu"
  row "tokens per second on one GPU" pass "$(speed gpu)"
else
  row "training on one GPU" fail "$(tail -n 1 "$runs/gpu.log")"
fi
if [ "$n_gpus" -gt 1 ]; then
  if on_all=$(train all cuda "$n_gpus"); then
    compare "losses of $n_gpus GPUs over NCCL beside one" "$on_all" "$on_gpu"
    row "tokens per second on $n_gpus GPUs" pass "$(speed all)"
  else
    row "training on $n_gpus GPUs" fail "$(tail -n 1 "$runs/all.log")"
  fi
else
  printf '| several GPUs over NCCL | not run | one GPU is visible |\n' >> "$report"
fi
if "$build/dsmoe" generate "$runs/gpu" --device=cuda --prompt "The " --max-tokens=16 > "$runs/generate.log" 2>&1; then
  row "generation on the GPU" pass "16 tokens"
else
  row "generation on the GPU" fail "$(tail -n 1 "$runs/generate.log")"
fi

cat "$report"
[ "$failures" -eq 0 ]
