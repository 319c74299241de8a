#pragma once

#include <ATen/core/Tensor.h>

#include "csrc_kernels/router/kernels.h"

namespace dsmoe {

/// A router's weights. The hidden layer is there for the swiglu form only: silu(x gate^T) * (x
/// up^T).
struct RouterWeights {
  at::Tensor gate;  // [d_hidden, d_model], or undefined
  at::Tensor up;    // the same shape, or undefined
  at::Tensor
      hidden;      // [2 * d_hidden, d_model], values of gate over up in the type of x, no gradient
  at::Tensor out;  // [n_experts, d_hidden or d_model], float32 (float64 for float64)
};

struct RouterResult {
  at::Tensor logits;  // [n_tokens, n_experts], float32 (float64 for float64)
  at::Tensor probs;   // the same shape, rows sum to 1 unless sigmoid
};

/// A whole router: hidden layer, logits and softmax. The hidden products have the type of x, the
/// rest is float32 (float64 for float64).
///
/// x        [n_tokens, d_model], float32, bfloat16 or float64, contiguous
/// sigmoid  probs are the sigmoids of the logits instead
/// Gradients reach x, gate, up and out, from logits and probs alike; kept for them are x, the
/// hidden layer before its activation, and probs. Throws c10::Error if shapes or types disagree.
/// Source: arXiv:2404.05567, section 3.1, equation 1.
RouterResult route(const at::Tensor& x, const RouterWeights& weights, bool sigmoid = false);

/// Reference implementation, of differentiable ATen calls.
RouterResult route_ref(const at::Tensor& x, const RouterWeights& weights, bool sigmoid = false);

}  // namespace dsmoe
