#!/usr/bin/env bash
# Reproduces the claims of arXiv:2404.05567 qualitatively: dense, sparse-trained (top-2, switch loss) and densely trained
# experts of equal width on the same text. Prints perplexity against active parameters (Tables 3 and 4, Figures 3 and 4),
# experts by layer, and at the sparse-trained model's activation the best uniform policies and a plan by layer; for the first
# seed also a shorter training and a narrower model. An existing run is resumed; JOBS runs train at a time.
# Usage: [SEEDS="1 2 3"] [JOBS=1] scripts/reproduce_ds_moe.sh [TRAIN VALID TEST] (without texts: Tiny Shakespeare)
set -euo pipefail
[ $# -eq 0 ] || [ $# -eq 3 ] || { sed -n '2,6p' "$0" | cut -c3-; exit 2; }
texts=()
[ $# -eq 0 ] || for text in "$@"; do texts+=("$(realpath "$text")"); done
cd "$(dirname "$0")/.."
runs=runs/ds-moe
read -r -a seeds <<< "${SEEDS:-1}"

mkdir -p "$runs"
if [ ! -d "$runs/data-valid" ]; then
  # Plans are chosen on the start of the validation text; every figure is measured on the start of the test text.
  python3 - "$runs" "${texts[@]}" <<'PYTHON'
import sys
runs, *texts = sys.argv[1:]
if texts:
    train, valid, test = (open(text, encoding="utf-8").read() for text in texts)
else:
    train, valid = (open(f"data/tinyshakespeare/{part}.txt", encoding="utf-8").read() for part in ("train", "valid"))
    middle = valid.index("\n\n", len(valid) // 2)
    valid, test = valid[:middle], valid[middle:]
for name, text in (("train", train), ("valid", valid[:300_000]), ("calibration", valid[:100_000]), ("test", test[:300_000])):
    with open(f"{runs}/{name}.txt", "w", encoding="utf-8") as out:
        out.write(text)
PYTHON
  rm -rf "$runs/data-train"
  build/dsmoe tokenize --input "$runs/train.txt" --tokenizer train:bpe:1024 --out "$runs/data-train"
  build/dsmoe tokenize --input "$runs/valid.txt" --tokenizer "$runs/data-train/tokenizer.model" --out "$runs/data-valid"
fi

# A line is a run: NAME CONFIG SEED STEPS [OPTION...].
list_runs() {
  for seed in "${seeds[@]}"; do
    echo "ds-moe-$seed quickstart $seed 800"
    echo "sparse-$seed quickstart-sparse $seed 800"
    echo "dense-$seed quickstart-dense $seed 800"
    echo "ds-moe-light-$seed quickstart $seed 800 --train.loss.moe_mi_weight=2e-3"
  done
  echo "ds-moe-short quickstart ${seeds[0]} 200"
  echo "sparse-short quickstart-sparse ${seeds[0]} 200"
  local narrow="--model.d_model=96 --model.attention.head_dim=12 --model.moe.d_expert=24"
  echo "ds-moe-narrow quickstart ${seeds[0]} 800 $narrow"
  echo "sparse-narrow quickstart-sparse ${seeds[0]} 800 $narrow"
}
train() {
  build/dsmoe train "configs/$2.yaml" --run_dir="$runs/$1" --seed="$3" --train.steps="$4" --train.validate_every=400 \
    --train.save_every=200 --data.train="$runs/data-train" --data.validation="$runs/data-valid" "${@:5}"
}
export -f train
export runs
list_runs | xargs -P "${JOBS:-1}" -L 1 bash -c 'train "$@"' train

echo 'Tables 3 and 4: perplexity, active parameters, two weights of the MI loss'
rows=()
for seed in "${seeds[@]}"; do
  rows+=("$runs/dense-$seed" training -- "$runs/sparse-$seed" training --)
  for run in "ds-moe-$seed" "ds-moe-light-$seed"; do
    rows+=("$runs/$run" all threshold=0.48 threshold=0.8 threshold=1.2 --)
  done
done
scripts/policy_table.py --no-speed "$runs/test.txt" "${rows[@]}" | tee "$runs/tables.txt"

echo 'At equal active parameters: a plan by layer, the best threshold and top_k, the sparse-trained model'
equal() { scripts/equal_activation.py "$runs/calibration.txt" "$runs/test.txt" "$@" | tee -a "$runs/equal.txt"; }
: > "$runs/equal.txt"
for seed in "${seeds[@]}"; do
  equal "$runs/sparse-$seed" "$runs/ds-moe-$seed" --shares 0.3 0.45
done
for size in short narrow; do equal "$runs/sparse-$size" "$runs/ds-moe-$size"; done

echo 'Figures 3 and 4: the curves of three policies'
policies=(all)
for k in 1 2 3 4 6 8; do policies+=("top_k=$k"); done
for threshold in 0.3 0.48 0.8; do policies+=("threshold=$threshold" "threshold_top_k=$threshold"); done
first=$runs/ds-moe-${seeds[0]}
build/dsmoe curve "$first" --data "$runs/test.txt" --policies "${policies[@]}" --dtype float32 --plot "$runs/curve.svg" --force |
  tee "$runs/curve.txt"

echo 'Figure 5: experts of each layer'
scripts/expert_map.py "$first" "$runs/test.txt" --policy threshold=0.48 --svg "$runs/experts.svg" | tee "$runs/experts.txt"
