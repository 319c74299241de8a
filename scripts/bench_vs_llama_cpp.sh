#!/usr/bin/env bash
# Compares prompts and decoding with llama.cpp on random weights of one shape (configs/bench/olmoe.yaml), alternating.
# Opt-in: fetches llama.cpp (77 MB, the source that llama-cpp-python 0.3.36 carries) and numpy from the Python index, builds
# llama-bench for this CPU (some minutes on 2 cores) and writes weights of 2.2 GB. Needs a release build and a quiet machine.
# Usage: bench_vs_llama_cpp.sh [--rounds N] [--threads 1,2] [--dtypes bfloat16,int8] [--folder DIR] [--json FILE]
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
rounds=3 threads=1,2 dtypes=bfloat16,int8 folder=build/bench-vs-llama-cpp json=
while [ $# -gt 0 ]; do
  case $1 in
    --rounds) rounds=$2 ;;
    --threads) threads=$2 ;;
    --dtypes) dtypes=$2 ;;
    --folder) folder=$2 ;;
    --json) json=$(realpath -m "$2") ;;
    *) echo "bench_vs_llama_cpp: unknown option '$1'; the script's head lists them" >&2; exit 2 ;;
  esac
  shift 2
done
[ -x build/dsmoe ] || { echo "bench_vs_llama_cpp: expected build/dsmoe; run 'cmake --build --preset release'" >&2; exit 2; }
work=$(realpath -m "$folder")
mkdir -p "$work"
cd "$work"

source=$work/llama_cpp_python-0.3.36/vendor/llama.cpp
[ -x venv/bin/python ] || python3 -m venv venv
venv/bin/python -c 'import numpy, yaml, requests' 2> /dev/null || venv/bin/pip install --quiet numpy==2.4.6 pyyaml==6.0.3 requests tqdm
if [ ! -d "$source" ]; then
  venv/bin/pip download --quiet --no-deps --no-binary :all: llama-cpp-python==0.3.36
  tar xzf llama_cpp_python-0.3.36.tar.gz
fi
if [ ! -x llama/bin/llama-bench ]; then
  cmake -S "$source" -B llama -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF \
    -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_CURL=OFF > llama.log
  cmake --build llama --target llama-bench >> llama.log
fi
gguf_type() { case $1 in bfloat16) echo bfloat16 ;; int8) echo q8_0 ;; *) echo "bench_vs_llama_cpp: unknown dtype '$1'" >&2; exit 2 ;; esac; }
for dtype in ${dtypes//,/ }; do
  [ -e "$dtype.gguf" ] || venv/bin/python "$root/scripts/olmoe_gguf.py" "$source/gguf-py" "$(gguf_type "$dtype")" 8 "$dtype.gguf"
done

rm -rf results && mkdir results
for round in $(seq "$rounds"); do
  for dtype in ${dtypes//,/ }; do
    for n in ${threads//,/ }; do
      llama/bin/llama-bench -m "$dtype.gguf" -p 128,512 -n 64 -t "$n" -r 2 -o json > "results/llama-$dtype-$n-$round.json" 2>> llama.log
      for prompt in 128 512; do
        generate=$([ "$prompt" = 128 ] && echo 64 || echo 0)
        "$root/build/dsmoe" bench --config "$root/configs/bench/olmoe.yaml" --dtype "$dtype" --threads "$n" --prompt "$prompt" \
          --generate "$generate" --repetitions 2 --json > "results/dsmoe-$dtype-$n-$prompt-$round.json"
      done
    done
  done
done
python3 "$root/scripts/llama_cpp_table.py" results ${json:+--json "$json"}
