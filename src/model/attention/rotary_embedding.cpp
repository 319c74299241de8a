#include "model/attention/rotary_embedding.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/pow.h>

namespace dsmoe {

RotaryTables rotary_tables(const at::Tensor& positions,
                           int64_t head_dim,
                           double theta,
                           at::ScalarType dtype) {
  TORCH_CHECK(head_dim % 2 == 0, "rotary_tables: expected an even head_dim, got ", head_dim);
  const auto exponents = at::arange(0, head_dim, 2, positions.options().dtype(at::kDouble)) /
                         static_cast<double>(head_dim);
  const auto angles = positions.to(at::kDouble).unsqueeze(-1) * at::pow(theta, -exponents);
  return {angles.cos().to(dtype), angles.sin().to(dtype)};
}

at::Tensor apply_rotary(const at::Tensor& x, const RotaryTables& tables) {
  const int64_t half = x.size(-1) / 2;
  const auto wide = x.to(tables.cos.scalar_type());
  const auto first = wide.narrow(-1, 0, half);
  const auto second = wide.narrow(-1, half, half);
  return at::cat(
             {first * tables.cos - second * tables.sin, second * tables.cos + first * tables.sin},
             -1)
      .to(x.scalar_type());
}

}  // namespace dsmoe
