#include "model/attention/rotary_embedding.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/pow.h>

#include "csrc_kernels/attention/rotary.h"

namespace dsmoe {

RotaryTables rotary_tables(const at::Tensor& positions,
                           int64_t head_dim,
                           double theta,
                           at::ScalarType dtype) {
  TORCH_CHECK(head_dim % 2 == 0, "rotary_tables: expected an even head_dim, got ", head_dim);
  const auto exponents = at::arange(0, head_dim, 2, positions.options().dtype(at::kDouble)) /
                         static_cast<double>(head_dim);
  // [n_rows, head_dim / 2]
  const auto angles =
      positions.reshape({-1}).to(at::kDouble).unsqueeze(-1) * at::pow(theta, -exponents);
  return {angles.cos().to(dtype), angles.sin().to(dtype)};
}

at::Tensor apply_rotary(const at::Tensor& x, const RotaryTables& tables) {
  if (!tables.cos.defined()) return x;
  const auto rows = x.view({-1, x.size(-2), x.size(-1)});  // [n_tokens, n_heads, head_dim]
  return rotary(rows, tables.cos, tables.sin).view(x.sizes());
}

}  // namespace dsmoe
