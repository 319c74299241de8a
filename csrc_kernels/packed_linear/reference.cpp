#include <ATen/ops/linear.h>

#include "csrc_kernels/packed_linear/packed_linear.h"

namespace dsmoe {

at::Tensor packed_linear_ref(const at::Tensor& x, const PackedLinear& weight, at::ScalarType type) {
  const auto y = at::linear(x.to(at::kDouble), unpack_matrix(weight.weight).to(at::kDouble));
  return (weight.bias.defined() ? y + weight.bias.to(at::kDouble) : y).to(type);
}

}  // namespace dsmoe
