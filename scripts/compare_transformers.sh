#!/usr/bin/env bash
# Compares LLaMA import and export with transformers on new random models: loss, greedy decoding, logits.
# Installs a pinned environment under build/ (some gigabytes). --write regenerates the files of tests/golden.
set -euo pipefail
cd "$(dirname "$0")/.."

venv=build/venv-transformers
python=$venv/bin/python
if [ ! -x "$python" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet torch==2.11.0 transformers==4.57.1 tokenizers==0.22.2 safetensors==0.8.0 numpy==2.4.6
fi
if [ "${1:-}" = --write ]; then
  "$python" tests/golden/make_llama_golden.py tests/golden
  exit
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" tests/golden/compare_transformers.py build/dsmoe "$work"
