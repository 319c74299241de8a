#!/usr/bin/env bash
# On a machine with NVIDIA GPUs: runs every op with a CUDA kernel against its reference, trains the quick start's model on one
# GPU beside the CPU (and on all visible GPUs beside one), resumes, generates, compares sparse with dense execution, measures
# training and decoding of the paper's 1B shape, and writes the results to gpu_report.md. Exits with 0 if all results agree, 1 if
# not, 2 if there is no GPU. It builds the `cuda` preset first, for which it needs a CUDA 13.0 toolkit; with --no-build it uses
# the existing build-cuda. Usage: scripts/gpu_selftest.sh [--no-build] [--quick] [STEPS]
# STEPS: of the trainings, 20 or more. --quick: no measurements.
set -uo pipefail
cd "$(dirname "$0")/.."
builds=true measures=true steps=60
for argument in "$@"; do
  case "$argument" in
    --no-build) builds=false ;;
    --quick) measures=false ;;
    *) steps=$argument ;;
  esac
done
report=${GPU_REPORT:-gpu_report.md}

gpus=$(nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader 2>/dev/null) || gpus=
if [ -z "$gpus" ]; then
  echo "gpu_selftest: no GPU is visible here (nvidia-smi lists none); nothing was run" >&2
  exit 2
fi
n_gpus=$(wc -l <<< "$gpus")

build=build-cuda
if $builds; then
  scripts/setup.sh --cuda && cmake --preset cuda && cmake --build --preset cuda || exit 1
fi
runs=$(mktemp -d)
trap 'rm -rf "$runs"' EXIT
failures=0
started=$SECONDS

# row NAME STATUS TEXT: appends a line to the report.
row() {
  printf '| %s | %s | %s |\n' "$1" "$2" "$3" | tee -a "$report"
  [ "$2" != fail ] || failures=$((failures + 1))
}
# last FILE: prints its last line, escaped for a cell of the table.
last() { tail -n 1 "$1" | tr '|' '/' | cut -c 1-200; }

{
  printf '# GPU self-test of %s\n\n' "$(git rev-parse --short HEAD 2>/dev/null || echo unknown)"
  printf '%s GPU(s):\n\n' "$n_gpus"
  printf -- '- %s\n' "${gpus//$'\n'/$'\n'- }"
  printf '\n| check | result | detail |\n| --- | --- | --- |\n'
} > "$report"

# ops NAME TAGS: the tests of a tag on the GPU instead of the stand-in device.
ops() {
  if DSMOE_TEST_DEVICE=cuda DSMOE_CUDA_MODULE="$build/dsmoe_cuda.so" timeout 200 "$build/tests/test_device" "$2" \
      > "$runs/ops.log" 2> "$runs/ops.err"; then
    row "$1" pass "$(grep -E 'passed' "$runs/ops.log" | tail -n 1)"
  else
    row "$1" fail "$(grep -E 'assertions:|test cases:' "$runs/ops.log" | tail -n 1); $(last "$runs/ops.err")"
    grep -E -A 12 'FAILED|due to' "$runs/ops.log" | head -n 60 >&2
  fi
}
ops "every op against its float64 reference" "[device_ops]"
ops "training, generation and recorded decoding against the CPU" "[device_kernels]"

# train NAME DEVICE RANKS DTYPE STEPS: prints the losses of every step.
train() {
  local launch=()
  [ "$3" -eq 1 ] || launch=(launch -n "$3" --)
  timeout 200 "$build/dsmoe" "${launch[@]}" train configs/quickstart.yaml --run_dir="$runs/$1" --device="$2" \
    --train.steps="$5" --data.train="$runs/data" --data.validation= --train.validate_every=0 --train.accumulation="$n_gpus" \
    --train.log_every=1 --train.compute_dtype="$4" --train.schedule.kind=constant --train.schedule.warmup_steps=10 \
    --resume auto > "$runs/$1.log" 2>&1 || return 1
  python3 - "$runs/$1/metrics.jsonl" <<'P'
import json, sys
print(*[json.loads(line)["loss"] for line in open(sys.argv[1]) if '"loss"' in line])
P
}

# compare CHECK LOSSES OTHER TOLERANCE: checks that two lists of losses agree within a relative tolerance at each step.
compare() {
  local text
  if text=$(python3 - "$2" "$3" "$4" <<'P'
import sys
a, b = ([float(x) for x in text.split()] for text in sys.argv[1:3])
worst = max(abs(x - y) / abs(y) for x, y in zip(a, b)) if a and len(a) == len(b) else float("inf")
print(f"{len(a)} steps, last losses {a[-1] if a else None} and {b[-1] if b else None}, largest difference {worst:.2e}")
sys.exit(worst > float(sys.argv[3]))
P
  ); then row "$1" pass "$text"; else row "$1" fail "$text"; fi
}

# number FILE KEY: the last value of a key in a file of JSON lines.
number() {
  python3 -c 'import json, sys; print([json.loads(l)[sys.argv[2]] for l in open(sys.argv[1]) if f"\"{sys.argv[2]}\"" in l][-1])' "$1" "$2"
}

"$build/dsmoe" tokenize --input data/tinyshakespeare/train.txt --tokenizer bytes --out "$runs/data" > /dev/null 2>&1
on_cpu=$(train cpu cpu 1 float32 "$steps") || row "training on the CPU" fail "$(last "$runs/cpu.log")"
if on_gpu=$(train gpu cuda 1 float32 "$steps"); then
  compare "losses of one GPU beside the CPU, float32" "$on_gpu" "$on_cpu" 1e-3
  if on_bf16=$(train bf16 cuda 1 bfloat16 "$steps"); then
    compare "losses in bfloat16 beside float32" "$on_bf16" "$on_gpu" 3e-2
  else
    row "losses in bfloat16 beside float32" fail "$(last "$runs/bf16.log")"
  fi
  if train halves cuda 1 float32 $((steps / 2)) > /dev/null && on_halves=$(train halves cuda 1 float32 "$steps"); then
    compare "losses of a run that was resumed" "$on_halves" "$on_gpu" 1e-4
  else
    row "losses of a run that was resumed" fail "$(last "$runs/halves.log")"
  fi
  row "tokens per second, quick start" info "$(number "$runs/gpu/metrics.jsonl" tokens_per_second)"
  row "device memory, quick start" info "$(number "$runs/gpu/metrics.jsonl" device_memory_bytes) bytes at most"
else
  row "training on one GPU" fail "$(last "$runs/gpu.log")"
fi
if [ "$n_gpus" -gt 1 ]; then
  if on_all=$(train all cuda "$n_gpus" float32 "$steps"); then
    compare "losses of $n_gpus GPUs over NCCL beside one" "$on_all" "$on_gpu" 1e-3
    row "tokens per second on $n_gpus GPUs" info "$(number "$runs/all/metrics.jsonl" tokens_per_second)"
  else
    row "training on $n_gpus GPUs" fail "$(last "$runs/all.log")"
  fi
else
  row "several GPUs over NCCL" "not run" "one GPU is visible"
fi

# One model, one selection, two executions: the same text.
text_of() {
  timeout 100 "$build/dsmoe" generate "$runs/gpu" --device=cuda --prompt "The " --max-tokens=64 --dtype float32 \
    --policy "$1" --execution "$2" 2> "$runs/generate.log"
}
for policy in all top_k=2 threshold=0.3; do
  sparse=$(text_of $policy sparse) && dense=$(text_of $policy dense)
  if [ -n "$sparse" ] && [ "$sparse" = "$dense" ]; then
    row "text of sparse and dense execution, $policy" pass "${#sparse} characters"
  else
    row "text of sparse and dense execution, $policy" fail "$(last "$runs/generate.log")"
  fi
done

# bench_train BATCH: a step of DS-MoE-1B and of its dense baseline on random tokens.
bench_train() {
  timeout 200 "$build/dsmoe" bench --train --config configs/dense_1b.yaml --config configs/ds_moe_1b.yaml --device cuda \
    --train.batch_size="$1" --train.accumulation=1 --train.checkpoint_activations=none --warmup 3 --repetitions 8 --json \
    > "$runs/train.json" 2> "$runs/train.err" || return 1
  python3 - "$runs/train.json" <<'P'
import json, sys
for c in json.load(open(sys.argv[1]))["configs"]:
    print(f"{c['name']}: {1e3 * c['step_seconds']:.1f} ms a step of {c['tokens_per_step']} tokens, {c['tokens_per_second']:.0f} tokens/s, "
          f"{c['matrix_flops_per_second'] / 1e12:.0f} TFLOP/s of a large product, MFU of that {100 * c['mfu']:.1f} %, "
          f"{c['peak_memory_bytes'] / 2**30:.1f} GiB, step over the dense baseline's {c['step_seconds_over_first']:.3f}")
P
}
# eager_text FILE: what scripts/pytorch_step.py printed, in a line.
eager_text() {
  python3 - "$1" <<'P'
import json, sys
c = json.load(open(sys.argv[1]))
print(f"{1e3 * c['step_seconds']:.1f} ms a step, {c['peak_memory_bytes'] / 2**30:.1f} GiB")
P
}
# bench_decode CONFIG POLICY EXECUTION BATCH: tokens per second of prompts and of decoding.
bench_decode() {
  timeout 100 "$build/dsmoe" bench --config "configs/$1.yaml" --device cuda --dtype bfloat16 --prompt 1024 --generate 64 \
    --policy "$2" --execution "$3" --batch "$4" --repetitions 3 --json > "$runs/decode.json" 2> "$runs/decode.err" || return 1
  python3 - "$runs/decode.json" <<'P'
import json, sys
c = json.load(open(sys.argv[1]))
decode = c["decode_tokens_per_second"]["median"]
print(f"prompt of 1024: {c['prefill_tokens_per_second']['median']:.0f} tokens/s; decode: {decode:.1f} tokens/s, "
      f"{decode / c['batch'] * c['bytes_per_token'] / 1e9:.0f} GB/s of weights")
P
}
if $measures; then
  if text=$(bench_train 4); then
    while read -r line; do row "training step" info "$line"; done <<< "$text"
  else
    row "training step, 1B shape" fail "$(last "$runs/train.err")"
  fi
  # The same step in eager PyTorch, if a Python has it: separate parameters, the same tokens.
  for config in dense_1b ds_moe_1b; do
    python3 -c 'import torch, yaml, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null || {
      row "eager PyTorch" "not run" "no python3 here has torch with a GPU, and yaml"; break; }
    if "$build/dsmoe" bench --train --config "configs/$config.yaml" --train.batch_size=4 --train.accumulation=1 \
        --train.checkpoint_activations=none --print-config 2> "$runs/eager.err" | sed 1d \
        | timeout 150 python3 scripts/pytorch_step.py --device cuda --warmup 3 --repetitions 8 > "$runs/eager.json" 2>> "$runs/eager.err"; then
      row "eager PyTorch, $config, batch 4" info "$(eager_text "$runs/eager.json")"
    else
      row "eager PyTorch, $config, batch 4" info "did not run: $(last "$runs/eager.err")"
    fi
  done
  while read -r config policy execution batch; do
    if text=$(bench_decode "$config" "$policy" "$execution" "$batch"); then
      row "$config, $policy, $execution, batch $batch" info "$text"
    else
      row "$config, $policy, $execution, batch $batch" fail "$(last "$runs/decode.err")"
    fi
  done << 'T'
dense_1b all dense 1
ds_moe_1b all dense 1
ds_moe_1b moe:top_k=8;moa:top_k=8 sparse 1
ds_moe_1b moe:top_k=8;moa:top_k=8 dense 1
ds_moe_1b moe:top_k=8;moa:top_k=8 sparse 8
ds_moe_1b moe:top_k=8;moa:top_k=8 dense 8
T
fi
printf '\n%s s, %s failures\n' "$((SECONDS - started))" "$failures" | tee -a "$report"
[ "$failures" -eq 0 ]
