#!/usr/bin/env bash
# Trains the quick start's model and its dense and sparse-trained baselines for the same steps on the same data and prints
# one table. About 20 minutes on 2 cores with AVX512-BF16; an existing run is resumed.
set -euo pipefail
cd "$(dirname "$0")/.."

for part in train valid; do
  [ -d "runs/quickstart-data/$part" ] ||
    build/dsmoe tokenize --input "data/tinyshakespeare/$part.txt" --tokenizer bytes --out "runs/quickstart-data/$part"
done
for config in quickstart quickstart-dense quickstart-sparse; do
  build/dsmoe train "configs/$config.yaml"
done
scripts/policy_table.py data/tinyshakespeare/valid.txt runs/quickstart all top_k=1 top_k=2 top_k=4 top_k=8 \
  threshold=0.48 threshold=0.8 -- runs/quickstart-dense training -- runs/quickstart-sparse training
