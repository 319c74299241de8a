#pragma once

#include <ATen/core/Tensor.h>

#include "csrc_kernels/expert_rows/expert_rows.h"
#include "csrc_kernels/token_choice/kernels.h"

namespace dsmoe {

struct ExpertChoice {
  at::Tensor selected;  // [n_tokens, n_experts] bool
  ExpertPairs pairs;    // of the chosen, or of all
};

/// Chooses and lists in one call what a dozen tensor operations would; no gradient.
///
/// probs  [n_tokens, n_experts] float32, contiguous
/// list_all  pairs of every token and expert, those not selected with weight 0
/// Except under kThresholdTopK a token's choice does not depend on the other tokens.
/// Source: arXiv:2404.05567, sections 3.1 and 4.3; arXiv:2502.12455, section 4.
ExpertChoice choose_experts(const at::Tensor& probs,
                            const RoutingRule& rule,
                            bool list_all = false);

/// What choose_experts does without the list of pairs, on any device and without waiting for it; no
/// gradient.
struct ChosenWeights {
  at::Tensor selected;  // [n_tokens, n_experts] bool
  at::Tensor weights;   // the same shape, float32; zero where not selected
};
ChosenWeights choose_weights(const at::Tensor& probs, const RoutingRule& rule);

/// Whether choose_weights has a kernel for probs, or would go through choose_experts.
bool has_choice_kernel(const at::Tensor& probs);

/// The definition of right, of ATen calls; among equals another expert may win.
ExpertChoice choose_experts_ref(const at::Tensor& probs,
                                const RoutingRule& rule,
                                bool list_all = false);

}  // namespace dsmoe
