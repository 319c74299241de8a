#!/usr/bin/env bash
# Enforces the table of src/README.md: which room may include which, which headers nobody may include, and that what is
# printed goes through common/standard_output.h or common/log.h, which escape it.
# Usage: check_layers.sh [ROOT]; prints every violation and exits with 1 if there is one.
set -euo pipefail
cd "${1:-"$(dirname "$0")/.."}"

declare -A may_include=(
  [common]=""
  [csrc_kernels]="common"
  [formats]="common"
  [distributed]="common"
  [data]="common formats"
  [model]="common formats csrc_kernels"
  [eval]="common formats data model"
  [train]="common csrc_kernels formats distributed data model eval"
  [infer]="common formats data model"
  [cuda_module]="common csrc_kernels distributed"
  [report]="common formats model eval train"
  [cli]="common csrc_kernels formats distributed data model eval train infer report"
)
violations=0
report() { printf '%s\n' "$1"; violations=$((violations + 1)); }

while read -r file; do
  case "$file" in
    csrc_kernels/cuda_module/*) room=cuda_module ;;
    csrc_kernels/*) room=csrc_kernels ;;
    *) room=${file#src/}; room=${room%%/*} ;;
  esac
  [ -n "${may_include[$room]+set}" ] || { report "$file: '$room' is not a room of the table"; continue; }
  while read -r target; do
    [ "$target" = "$room" ] && continue
    [ -n "${may_include[$target]+set}" ] || continue
    case " ${may_include[$room]} " in
      *" $target "*) ;;
      *) report "$file: room '$room' may not include room '$target'" ;;
    esac
  done < <(sed -nE 's/^ *# *include *"([a-z_]+)\/.*/\1/p' "$file" | sort -u)
  if grep -nE '#include *<(torch/torch\.h|ATen/ATen\.h)>|torch::(save|load)\(' "$file" >/dev/null; then
    report "$file: torch/torch.h, ATen/ATen.h, torch::save and torch::load are not used here"
  fi
  case "$room" in
    common | formats)
      ! grep -qE '#include *<(torch|ATen|c10)/' "$file" || report "$file: room '$room' knows no torch header" ;;
  esac
  case "$file" in
    src/common/log.cpp | src/common/standard_output.* | src/common/progress.cpp) ;; # a bar; lines of escaped text
    src/*)
      ! grep -qE '(^|[^a-z_])(v?f?printf|f?puts|f?putc|putchar|fwrite|fmt::print)\(|std::(cout|cerr|clog)' "$file" ||
        report "$file: text is printed by print_out or StandardOutput of common/standard_output.h, or by common/log.h" ;;
  esac
  case "$file" in
    */*body.h | */*kernels.h | *.cu | *.cuh)
      ! grep -qE '#include *<(torch|ATen|c10)/' "$file" || report "$file: a kernel knows no torch header" ;;
  esac
  case "$file" in
    *.h | *.cuh) grep -q '^#pragma once' "$file" || report "$file: #pragma once is missing" ;;
  esac
done < <(find src csrc_kernels -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | sort)

[ "$violations" -eq 0 ] || { printf '%d violations of the layering\n' "$violations"; exit 1; }
printf 'layering: kept\n'
