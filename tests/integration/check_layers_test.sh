#!/usr/bin/env bash
# The layering check passes on this tree and fails for each planted violation.
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
"$root/scripts/check_layers.sh"

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
mkdir -p "$copy/src/common" "$copy/src/train" "$copy/csrc_kernels"
expect_failure() {  # file, content, expected message
  printf '%s\n' "$2" > "$copy/$1"
  if output=$("$root/scripts/check_layers.sh" "$copy"); then
    printf 'not found: %s\n' "$3"
    exit 1
  fi
  grep -qF "$3" <<< "$output" || { printf 'expected "%s", got: %s\n' "$3" "$output"; exit 1; }
  rm "$copy/$1"
}
"$root/scripts/check_layers.sh" "$copy"
expect_failure src/common/a.cpp '#include "model/linear.h"' "module 'common' may not include module 'model'"
expect_failure src/train/a.cpp '#include "infer/sampler.h"' "module 'train' may not include module 'infer'"
expect_failure csrc_kernels/a.cpp '#include "model/linear.h"' "module 'csrc_kernels' may not include"
expect_failure src/train/a.cpp '#include <torch/torch.h>' "torch/torch.h"
mkdir "$copy/src/other"
expect_failure src/other/a.cpp 'int x;' "'other' is not a module of the table"
rmdir "$copy/src/other"
expect_failure src/common/a.cpp '#include <ATen/core/Tensor.h>' "may not include torch headers"
mkdir -p "$copy/src/cli/options"
expect_failure src/cli/options/a.h '#include "model/linear.h"' "the program may not include torch headers"
expect_failure src/cli/main.cpp '#include <ATen/core/Tensor.h>' "the program may not include torch headers"
expect_failure src/train/a.h 'int x;' "#pragma once is missing"
for print in 'fmt::print("{}", name);' 'std::fprintf(stderr, "%s", name);' 'std::cout << name;' 'std::fputs(name, stdout);'; do
  expect_failure src/train/a.cpp "$print" "text is printed by print_out"
done
printf 'all planted violations found\n'
