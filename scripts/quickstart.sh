#!/usr/bin/env bash
# From an empty clone to a trained model and its sparse forms: set-up, build, tokenize, train, stop, resume, evaluate, generate.
# With --smoke: the same steps in seconds, with a hardly trained model.
set -euo pipefail
cd "$(dirname "$0")/.."

run=runs/quickstart
data=runs/quickstart-data
text=data/tinyshakespeare/valid.txt
stop_step=1000
overrides=()
policies=(all top_k=1 top_k=2 top_k=4 top_k=8 threshold=0.48 threshold=0.8)
if [ "${1:-}" = --smoke ]; then
  run=runs/smoke
  data=runs/smoke-data
  text=$data/valid.txt
  stop_step=20
  overrides=(--train.schedule.warmup_steps=5 --train.log_every=5 --train.validate_every=0 --data.validation=)
  policies=(all top_k=4 threshold=0.48)
elif [ "$#" -gt 0 ]; then
  printf 'usage: scripts/quickstart.sh [--smoke]\n' >&2
  exit 2
fi
overrides+=("--run_dir=$run" "--data.train=$data/train")

name=start
hint='read the lines above'
step() {
  name=$1 hint=$2
  printf '\n== %s (%d:%02d min since the start)\n' "$name" $((SECONDS / 60)) $((SECONDS % 60))
}
trap 'printf "\nquickstart: the step \"%s\" failed; %s\n" "$name" "$hint" >&2' ERR

step 'set-up' 'the message names the package; scripts/setup.sh can be run again by itself'
scripts/setup.sh

step 'build' 'scripts/setup.sh installs what the build needs; remove build/ and try again'
cmake --preset release
cmake --build --preset release --target dsmoe --parallel "$(nproc)"

step 'tokenize' 'is data/tinyshakespeare complete, and is there free disk space?'
rm -rf "$run" "$data"
for part in train valid; do
  build/dsmoe tokenize --input "data/tinyshakespeare/$part.txt" --tokenizer bytes --out "$data/$part"
done
[ "$text" = "$data/valid.txt" ] && head -c 5000 data/tinyshakespeare/valid.txt > "$text"

step 'train' 'the message names the key or file; the same command resumes from the last checkpoint'
train=(build/dsmoe train configs/quickstart.yaml "${overrides[@]}")
grep -q avx512_bf16 /proc/cpuinfo || printf 'This CPU has no AVX512-BF16: training runs in float32, which takes longer.\n'
probe() {  # tokens per second of some steps without validation; its log shows only if it fails
  build/dsmoe train configs/quickstart.yaml --run_dir="$run-speed" --data.train="$data/train" --data.validation= \
    --train.validate_every=0 --train.steps=30 --train.schedule.warmup_steps=1 --train.log_every=20 --json \
    2>"$data/speed.log" | sed 's/.*"tokens_per_second":\([0-9]*\).*/\1/' || { cat "$data/speed.log" >&2; return 1; }
}
speed=$(probe)
rm -rf "$run-speed"
# The signal below needs some tenths of a second: this leaves five seconds at any speed of the machine.
[ "$run" != runs/smoke ] || train+=("--train.steps=$((stop_step + 20 + 5 * speed / (16 * 128)))")
[ "$run" = runs/smoke ] || printf 'About %d minutes of training on this machine.\n' $((2000 * 16 * 128 / speed / 60 + 1))
"${train[@]}" &
trainer=$!
# Stops half-way on purpose, as a cluster does: on SIGTERM the run saves its state and exits with 75.
until grep -q "\"step\":$stop_step," "$run/metrics.jsonl" 2>/dev/null; do
  kill -0 "$trainer" 2>/dev/null || wait "$trainer"
  sleep 0.2
done
kill -TERM "$trainer"
code=0
wait "$trainer" || code=$?
[ "$code" -eq 75 ]
printf '\nStopped by SIGTERM (exit code 75). The same command resumes from the checkpoint:\n'
"${train[@]}"

step 'evaluate' 'build/dsmoe eval --help explains the options'
scripts/policy_table.py "$text" "$run" "${policies[@]}" > "$run/policies.txt"

step 'generate' 'build/dsmoe generate --help explains the options'
for policy in all threshold=0.48; do
  printf -- '--- %s\n' "$policy"
  build/dsmoe generate "$run" --prompt 'ROMEO:' --policy "$policy" --temperature 0.8 --max-tokens 120
done

step 'the same model under each policy' ''
cat "$run/policies.txt"
printf '\nOne dense training, many sparse models: the table is in %s/policies.txt.\n' "$run"
