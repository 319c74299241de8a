#!/usr/bin/env bash
# Runs exported GGUF files in llama.cpp and compares the logits: small random models of both architectures that
# `dsmoe export --to gguf` writes. Opt-in: fetches llama.cpp (77 MB, the source that llama-cpp-python 0.3.36 carries) from
# the Python index and builds its library, some minutes on 2 cores. Needs a release build.
# Usage: check_gguf.sh [FOLDER]    (default build/check-gguf; what is built there is used again)
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$(realpath -m "${1:-build/check-gguf}")
dsmoe=$root/build/dsmoe
[ -x "$dsmoe" ] || { echo "check_gguf: expected build/dsmoe; run 'cmake --build --preset release'" >&2; exit 2; }
mkdir -p "$work"
cd "$work"
export OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive

source=$work/llama_cpp_python-0.3.36/vendor/llama.cpp
if [ ! -d "$source" ]; then
  python3 -m venv venv
  venv/bin/pip download --quiet --no-deps --no-binary :all: llama-cpp-python==0.3.36
  tar xzf llama_cpp_python-0.3.36.tar.gz
fi
if [ ! -e llama/src/libllama.a ]; then
  cmake -S "$source" -B llama -G Ninja -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF \
    -DLLAMA_BUILD_COMMON=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_TOOLS=OFF \
    -DLLAMA_BUILD_SERVER=OFF > llama.log
  cmake --build llama --target llama >> llama.log
fi
g++ -std=c++20 -O1 -I"$source/include" -I"$source/ggml/include" "$root/scripts/gguf_logits.cpp" -o gguf_logits \
  llama/src/libllama.a llama/ggml/src/libggml.a llama/ggml/src/libggml-cpu.a llama/ggml/src/libggml-base.a \
  -fopenmp -lpthread -ldl

for i in $(seq 300); do printf 'line %d of a text\n' "$((i * i % 97))"; done > text.txt
rm -rf shards && "$dsmoe" tokenize --input text.txt --tokenizer bytes --out shards > /dev/null 2>&1
check() {  # NAME ATTENTION POLICY
  rm -rf "run-$1" "$1.gguf" "$1.json"
  cat > "$1.yaml" <<YAML
run_dir: $work/run-$1
seed: 5
model:
  d_model: 64
  n_layers: 2
  max_seq_len: 32
  attention: {kind: dense, head_dim: 16, n_heads: 4, $2}
  ffn: {kind: moe, activation: swiglu}
  moe: {n_experts: 8, d_expert: 32, router: {kind: linear}}
data: {train: $work/shards}
train: {steps: 12, batch_size: 4, compute_dtype: float32, schedule: {peak: 2.0e-2, warmup_steps: 2}}
YAML
  "$dsmoe" train "$1.yaml" > "$1.log" 2>&1
  "$dsmoe" export "run-$1" "$1.gguf" --to gguf --policy "$3" --logits "$1.json" > /dev/null
  printf '%-10s %-8s ' "$1" "$3"
  ./gguf_logits "$1.gguf" "$1.json"
}
check olmoe "n_kv_heads: 4, qk_norm: true" top_k=3
check olmoe "n_kv_heads: 4, qk_norm: true" top_k=8
check qwen2moe "n_kv_heads: 2" top_k=3
check qwen2moe "n_kv_heads: 4" top_k=8
echo "check_gguf: llama.cpp gives the model's logits"
