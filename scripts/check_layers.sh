#!/usr/bin/env bash
# Enforces the table of src/README.md: the modules that a module may include, headers that no file may include, and printing
# only through common/standard_output.h or common/log.h, because they escape text.
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
  [infer]="common csrc_kernels formats data model"
  [cuda_module]="common csrc_kernels distributed"
  [report]="common formats model eval train"
  [cli]="common csrc_kernels formats distributed data model eval train infer report"
)
violations=0
report() { printf '%s\n' "$1"; violations=$((violations + 1)); }

mapfile -t files < <(find src csrc_kernels -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' | sort)
# forbid PATTERN MESSAGE file...: reports every file with a line that matches.
forbid() {
  local pattern=$1 message=$2 file
  shift 2
  while read -r file; do report "$file: $message"; done < <(grep -lE -e "$pattern" -- /dev/null "$@" || true)
}
# among REGEX: prints the files with a path that matches.
among() { printf '%s\n' "${files[@]}" | grep -E -e "$1" || true; }

for folder in src/*/; do
  folder=$(basename "$folder")
  [ -n "${may_include[$folder]+set}" ] || report "src/$folder: '$folder' is not a module of the table"
done
while IFS=: read -r file target; do
  case "$file" in
    csrc_kernels/cuda_module/*) module=cuda_module ;;
    csrc_kernels/*) module=csrc_kernels ;;
    *) module=${file#src/}; module=${module%%/*} ;;
  esac
  [ -n "${may_include[$module]+set}" ] || continue
  [ "$target" != "$module" ] && [ -n "${may_include[$target]+set}" ] || continue
  case " ${may_include[$module]} " in
    *" $target "*) ;;
    *) report "$file: module '$module' may not include module '$target'" ;;
  esac
done < <(grep -oHE '^ *# *include *"[a-z_]+/' -- /dev/null "${files[@]}" | sed -E 's/:.*"/:/; s/\/$//' | sort -u)

forbid '#include *<(torch/torch\.h|ATen/ATen\.h)>|torch::(save|load)\(' \
  "torch/torch.h, ATen/ATen.h, torch::save and torch::load are not used here" "${files[@]}"
for module in common formats; do
  mapfile -t some < <(among "^src/$module/")
  forbid '#include *<(torch|ATen|c10)/' "module '$module' may not include torch headers" "${some[@]}"
done
mapfile -t some < <(among '^src/cli/(options/|(main|command_line|command_layout|commands|completion|help_formatter|run_functions|load_run_functions)\.)')
forbid '#include *<(torch|ATen|c10)/|#include *"(model|eval|train|report)/' \
  "the program may not include torch headers: it answers help and refusals without LibTorch" "${some[@]}"
# Exceptions: the progress bar, and the files that escape text.
mapfile -t some < <(among '^src/' | grep -vE '^src/common/(log\.cpp|standard_output\..*|progress\.cpp)$')
forbid '(^|[^a-z_])(v?f?printf|f?puts|f?putc|putchar|fwrite|fmt::print)\(|std::(cout|cerr|clog)' \
  "text is printed by print_out or StandardOutput of common/standard_output.h, or by common/log.h" "${some[@]}"
mapfile -t some < <(among '(body\.h|kernels\.h|\.cu|\.cuh)$')
forbid '#include *<(torch|ATen|c10)/' "a kernel may not include torch headers" "${some[@]}"
mapfile -t some < <(among '\.(h|cuh)$')
while read -r file; do report "$file: #pragma once is missing"; done < <(
  [ "${#some[@]}" -eq 0 ] || grep -LE '^#pragma once' -- "${some[@]}" || true)

[ "$violations" -eq 0 ] || { printf '%d violations of the layering\n' "$violations"; exit 1; }
printf 'layering: kept\n'
