#include <ATen/ops/cat.h>
#include <ATen/ops/matmul.h>

#include "csrc_kernels/grouped_linear/grouped_linear.h"

namespace dsmoe {

at::Tensor grouped_linear_ref(const at::Tensor& x,
                              const at::Tensor& weight,
                              const std::vector<int64_t>& offsets,
                              ExpertAxis axis) {
  const auto n_experts = static_cast<int64_t>(offsets.size()) - 1;
  const int64_t dim = axis == ExpertAxis::kRows ? 0 : 1;
  const int64_t width = weight.size(dim) / n_experts;
  std::vector<at::Tensor> parts;
  for (int64_t i = 0; i < n_experts; ++i) {
    const auto rows = x.narrow(0, offsets[i], offsets[i + 1] - offsets[i]);
    parts.push_back(at::matmul(rows, weight.narrow(dim, i * width, width).t()));
  }
  return at::cat(parts, 0);
}

}  // namespace dsmoe
