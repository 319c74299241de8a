#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

#include "csrc_kernels/token_choice/kernels.h"

namespace dsmoe {

/// The experts of each token and their weights.
struct TokenChoice {
  at::Tensor selected;         // [n_tokens, n_experts] bool
  at::Tensor expert_weights;   // the same shape, exactly 0 where not selected
  int64_t most_per_token = 0;  // upper bound of a token's selected experts; 0: unknown
};

/// Upper bound of a token's selected experts, at most all.
inline int64_t most_experts(const TokenChoice& choice) {
  const int64_t n_experts = choice.selected.size(1);
  return choice.most_per_token > 0 ? std::min(choice.most_per_token, n_experts) : n_experts;
}

/// Selects experts per token and returns their weights; no gradient reaches the selection itself.
///
/// router_probs  [n_tokens, n_experts]; float32 and contiguous for packed
/// packed        beside packed weights: takes the CPU's kernel, without gradient
/// Gradients reach router_probs through the weights. Except under kThresholdTopK a token's choice
/// does not depend on the other tokens. Under kThreshold a token may select no expert; its weights
/// are all 0. Throws c10::Error for another shape or a k outside [1, n_experts].
/// Source: arXiv:2404.05567, sections 3.1 and 4.3; arXiv:2502.12455, section 4.
TokenChoice choose_experts(const at::Tensor& router_probs,
                           const RoutingRule& rule,
                           bool packed = false);

/// Whether choose_experts without gradient needs a host sync on a device.
bool choice_needs_host_sync(const RoutingRule& rule);

/// Reference implementation of differentiable ATen calls; among equals another expert may win.
TokenChoice choose_experts_ref(const at::Tensor& router_probs, const RoutingRule& rule);

}  // namespace dsmoe
