#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>

#include "csrc_kernels/rotary/rotary.h"

namespace dsmoe {

at::Tensor rotary_ref(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  // [n_table_rows, half] -> [n_rows, 1, half]
  const int64_t repeats = x.size(0) / cos.size(0);
  const auto c = cos.repeat({repeats, 1}).unsqueeze(1);
  const auto s = sin.repeat({repeats, 1}).unsqueeze(1);
  const auto halves = x.to(cos.scalar_type()).chunk(2, -1);
  return at::cat({halves[0] * c - halves[1] * s, halves[1] * c + halves[0] * s}, -1)
      .to(x.scalar_type());
}

}  // namespace dsmoe
