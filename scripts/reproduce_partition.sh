#!/usr/bin/env bash
# Cuts a dense LLaMA into experts and trains it on, after arXiv:2502.12455: perplexity against active parameters for
# thresholds 0.2 to 0.8, with and without the straight-through estimator and the threshold in training, beside
# LLaMA-MoE's top-3 of 8. An existing run is resumed; JOBS runs train at a time.
# Usage: [JOBS=1] scripts/reproduce_partition.sh TEXT (documents with <|endoftext|> between; every 10th is validation)
set -euo pipefail
[ $# -eq 1 ] || { sed -n '2,5p' "$0" | cut -c3-; exit 2; }
text=$(realpath "$1")
cd "$(dirname "$0")/.."
runs=runs/partition

mkdir -p "$runs"
if [ ! -d "$runs/data-valid" ]; then
  python3 - "$text" "$runs" <<'PYTHON'
import sys
end = "<|endoftext|>"
documents = [d.strip() for d in open(sys.argv[1], encoding="utf-8").read().split(end)][:-1]
for name, keep in (("train", lambda i: i % 10 != 9), ("valid", lambda i: i % 10 == 9)):
    with open(f"{sys.argv[2]}/{name}.txt", "w", encoding="utf-8") as out:
        out.write(end.join(d for i, d in enumerate(documents) if d and keep(i)))
PYTHON
  rm -rf "$runs/data-train"
  build/dsmoe tokenize --input "$runs/train.txt" --tokenizer train:bpe:1024 --out "$runs/data-train"
  build/dsmoe tokenize --input "$runs/valid.txt" --tokenizer "$runs/data-train/tokenizer.model" --out "$runs/data-valid"
fi

build/dsmoe train configs/partition-dense.yaml

# A cut of the dense model: NAME ROUTER_STD [OPTION...]. A conversion is complete or absent.
cut_dense() {
  [ -d "$runs/$1" ] || build/dsmoe convert "$runs/dense" "$runs/$1" --partition "n_experts=8,router_std=$2" "${@:3}"
}
# Logits with a standard deviation of 7 (router_std * sqrt(d_model)), as implied by the rates of the paper's Table 4.
cut_dense cut 0.6 --text "$runs/valid.txt"
cut_dense cut-narrow 0.02

# A line is a run. A weight of 3 ends near 3 of 8 experts, where the paper's models are. LLaMA-MoE starts narrow: a
# softmax over logits that spread by 7 would leave one expert of its three.
xargs -P "${JOBS:-1}" -L 1 build/dsmoe train configs/partition.yaml <<RUNS
--run_dir=$runs/cut-trained
--run_dir=$runs/cut-weight-3 --train.loss.sparsity_weight=3
--run_dir=$runs/cut-no-ste --model.partition.ste=false
--run_dir=$runs/cut-no-threshold --model.training_policy=all
--run_dir=$runs/cut-top3 --train.init_from=$runs/cut-narrow --model.training_policy=top_k=3 \
--model.partition.gates=softmax --train.init_override=model.partition.gates --model.partition.ste=false --train.loss.sparsity_weight=0 \
--train.loss.moe_mi_weight=0 --train.loss.switch_weight=0.01
RUNS

thresholds=()
for threshold in 0.2 0.3 0.4 0.5 0.6 0.7 0.8; do thresholds+=("threshold=$threshold"); done
scripts/policy_table.py --no-speed "$runs/valid.txt" "$runs/dense" training -- "$runs/cut" training \
  -- "$runs/cut-top3" training -- "$runs/cut-trained" "${thresholds[@]}" -- "$runs/cut-weight-3" "${thresholds[@]}" \
  -- "$runs/cut-no-ste" "${thresholds[@]}" \
  -- "$runs/cut-no-threshold" threshold=0.05 threshold=0.1 "${thresholds[@]}"
