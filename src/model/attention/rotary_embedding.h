#pragma once

#include <ATen/core/Tensor.h>

namespace dsmoe {

/// Cosine and sine of each position's angles.
struct RotaryTables {
  at::Tensor cos;  // [..., head_dim / 2]
  at::Tensor sin;  // [..., head_dim / 2]
};

/// Angles position * theta^(-2 i / head_dim), i = 0 .. head_dim / 2 - 1, computed in float64.
///
/// positions  [batch, seq] int64
/// returns    tables [batch, seq, head_dim / 2] in the given dtype
/// Source: arXiv:2104.09864, equation 15.
RotaryTables rotary_tables(const at::Tensor& positions,
                           int64_t head_dim,
                           double theta,
                           at::ScalarType dtype);

/// Turns the pairs (i, i + head_dim / 2) of the last dimension. The tables broadcast against
/// x [..., head_dim]; computed in the tables' dtype, returned in that of x.
at::Tensor apply_rotary(const at::Tensor& x, const RotaryTables& tables);

}  // namespace dsmoe
