#pragma once

#include <ATen/core/Tensor.h>

#include "csrc_kernels/rotary/rotary.h"
#include "model/model_config.h"

namespace dsmoe {

/// Returns theta^(-2 i / head_dim), i = 0 .. head_dim / 2 - 1, with `scaling` applied; [head_dim /
/// 2] float64.
/// Source: arXiv:2104.09864, equation 15; arXiv:2407.21783, section 3.2 (llama3 scaling).
at::Tensor rotary_frequencies(int64_t head_dim,
                              double theta,
                              const RopeScalingConfig& scaling = {});

/// Returns cosines and sines of the angles position * frequency, computed in float64.
///
/// positions    [...] int64, flattened to the rows of the tables
/// frequencies  [head_dim / 2] float64
/// returns      tables in the given dtype
RotaryTables rotary_tables(const at::Tensor& positions,
                           const at::Tensor& frequencies,
                           at::ScalarType dtype);

/// Rotates the pairs (i, i + head_dim / 2) of every head.
///
/// x        [..., n_heads, head_dim], contiguous; the dimensions before n_heads number the tokens
/// returns  like x, computed in the tables' dtype; x itself if the tables are undefined
at::Tensor apply_rotary(const at::Tensor& x, const RotaryTables& tables);

}  // namespace dsmoe
