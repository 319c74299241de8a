#pragma once

#include <ATen/core/Tensor.h>

#include "csrc_kernels/residual_norm/kernels.h"

namespace dsmoe {

/// Parameters of a norm over the last dimension.
struct NormParameters {
  NormKind kind;
  double eps;         ///< added to the variance
  at::Tensor weight;  // [d_model], float32 (float64 for float64)
  at::Tensor bias;    // [d_model], kLayerNorm only, or undefined
};

struct ResidualNormOutput {
  at::Tensor residual;  // x + y in the type of x; x itself if y is undefined
  at::Tensor normed;    // [..., d_model], in `type`
};

/// Adds the output of a half block to the residual stream and normalises the sum, in one pass.
///
/// x         [..., d_model], float32 (float64 for float64), contiguous
/// y         the same shape in `type`, contiguous, or undefined
/// type      of y and of normed: float32 or bfloat16 (float64 for float64)
/// Computes in the type of x. Gradients reach x, y, weight and bias; they need the residual and two
/// numbers per row. Throws c10::Error if shapes or types disagree.
/// Source: arXiv:1910.07467 (RMSNorm), arXiv:1607.06450 (LayerNorm).
ResidualNormOutput residual_norm(const at::Tensor& x,
                                 const at::Tensor& y,
                                 const NormParameters& parameters,
                                 at::ScalarType type);

/// Reference implementation in differentiable ATen calls.
ResidualNormOutput residual_norm_ref(const at::Tensor& x,
                                     const at::Tensor& y,
                                     const NormParameters& parameters,
                                     at::ScalarType type);

}  // namespace dsmoe
