#pragma once

#include <ATen/core/Tensor.h>

namespace dsmoe {

/// Cosines and sines of the angles of positions, float32 (float64 for float64). Token t takes row
/// t % n_rows, so that the tables of one sequence serve a batch. Undefined: no rotation.
struct RotaryTables {
  at::Tensor cos;  // [n_rows, head_dim / 2]
  at::Tensor sin;  // [n_rows, head_dim / 2]
};

/// Rotates the pairs (i, i + head_dim / 2) of every head by the angles of its row.
///
/// x         [n_rows, n_heads, head_dim], float32, bfloat16 or float64, contiguous
/// cos, sin  [n_table_rows, head_dim / 2], float32 (float64 for float64); row r of x takes row
///           r % n_table_rows, so that the tables of one sequence serve a batch
/// returns   like x
/// The gradient reaches x only and needs the tables only.
/// Throws c10::Error if shapes or types disagree. Source: arXiv:2104.09864, equation 34.
at::Tensor rotary(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

/// Reference implementation in differentiable ATen calls.
at::Tensor rotary_ref(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

}  // namespace dsmoe
