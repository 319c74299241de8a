#include "model/attention/rotary_embedding.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/pow.h>

#include <numbers>

namespace dsmoe {

at::Tensor rotary_frequencies(int64_t head_dim, double theta, const RopeScalingConfig& scaling) {
  TORCH_CHECK(head_dim % 2 == 0, "rotary_frequencies: expected an even head_dim, got ", head_dim);
  const auto exponents = at::arange(0, head_dim, 2, at::kDouble) / static_cast<double>(head_dim);
  const auto frequencies = at::pow(theta, -exponents);  // [head_dim / 2]
  if (scaling.kind == RopeScalingKind::kNone) return frequencies;
  const auto context = static_cast<double>(scaling.original_max_seq_len);
  // Wavelengths that fit into the original context: 1 where kept, 0 where stretched.
  const auto kept = ((context / (2.0 * std::numbers::pi) * frequencies - scaling.low_freq_factor) /
                     (scaling.high_freq_factor - scaling.low_freq_factor))
                        .clamp(0.0, 1.0);
  return frequencies * kept + frequencies / scaling.factor * (1.0 - kept);
}

RotaryTables rotary_tables(const at::Tensor& positions,
                           const at::Tensor& frequencies,
                           at::ScalarType dtype) {
  // [n_rows, head_dim / 2]
  const auto angles = positions.reshape({-1}).to(at::kDouble).unsqueeze(-1) * frequencies;
  return {angles.cos().to(dtype), angles.sin().to(dtype)};
}

at::Tensor apply_rotary(const at::Tensor& x, const RotaryTables& tables) {
  if (!tables.cos.defined()) return x;
  const auto rows = x.view({-1, x.size(-2), x.size(-1)});  // [n_tokens, n_heads, head_dim]
  return rotary(rows, tables.cos, tables.sin).view(x.sizes());
}

}  // namespace dsmoe
