#!/usr/bin/env bash
# Installs dsmoe into a temporary directory, builds consumer/ against it and compares its text with the program's own.
# Usage: consumer_test.sh BUILD_DIRECTORY
set -euo pipefail
build=$(realpath "$1")
here=$(realpath "$(dirname "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { printf '%s\n' "$*" >&2; exit 1; }

cmake --install "$build" --prefix "$work/installed" > "$work/install.log" || fail "$(tail -5 "$work/install.log")"
cmake -S "$here/consumer" -B "$work/build" -G Ninja -DCMAKE_BUILD_TYPE=Debug \
  -DCMAKE_PREFIX_PATH="$work/installed" > "$work/configure.log" 2>&1 || fail "$(tail -20 "$work/configure.log")"
cmake --build "$work/build" > "$work/build.log" 2>&1 || fail "$(tail -30 "$work/build.log")"

dsmoe=$work/installed/bin/dsmoe
for i in $(seq 200); do printf 'line %d of a text\n' "$i"; done > "$work/text.txt"
"$dsmoe" tokenize --input "$work/text.txt" --tokenizer bytes --out "$work/shards" > "$work/tokenize.log" 2>&1 ||
  fail "$(tail -5 "$work/tokenize.log")"
cat > "$work/config.yaml" <<YAML
run_dir: $work/run
threads: 1
model:
  d_model: 16
  n_layers: 2
  max_seq_len: 32
  attention: {kind: moa, head_dim: 4}
  moa: {n_experts: 2, heads_per_expert: 2, router: {kind: linear}}
  moe: {n_experts: 4, d_expert: 8, router: {kind: linear}}
data: {train: $work/shards}
train: {steps: 20, batch_size: 4, compute_dtype: float32, schedule: {peak: 1.0e-2, warmup_steps: 2}}
YAML
"$dsmoe" train "$work/config.yaml" > "$work/train.log" 2>&1 || fail "$(tail -5 "$work/train.log")"

expected=$("$dsmoe" generate "$work/run" --prompt "line 1" --max-tokens 8 --policy top_k=2 --json 2> /dev/null |
  python3 -c 'import json, sys; print(json.load(sys.stdin)["completions"][0]["text"])')
got=$("$work/build/complete" "$work/run" "line 1")
[ -n "$expected" ] || fail "dsmoe generate gave no text"
[ "$got" = "$expected" ] || fail "expected '$expected', got '$got'"
printf 'an installed dsmoe completes "line 1" with "%s"\n' "$got"
