#pragma once

#include <ATen/core/Tensor.h>

#include "csrc_kernels/moe/expert_rows.h"

namespace dsmoe {

enum class ChoiceKind {
  kAll,
  kTopK,           ///< the k strongest; among equals the lower number
  kThreshold,      ///< those with threshold_scale * prob > epsilon
  kThresholdTopK,  ///< top k with the mean count of kThreshold over all tokens as k, at least 1
};

/// What a token that chose nobody uses.
enum class EmptyChoice { kNothing, kStrongest, kAll };

/// How experts are chosen from a router's numbers, and what they then weigh.
struct ChoiceRule {
  ChoiceKind kind = ChoiceKind::kAll;
  int64_t k = 0;
  double epsilon = 0.0;
  double threshold_scale = 1.0;
  int64_t max_experts = 0;  ///< cap per token under kThreshold, the strongest; 0: none
  EmptyChoice empty = EmptyChoice::kNothing;
  bool renormalise = false;  ///< weights divided by their sum over the chosen
  bool count_scale = false;  ///< weights times n_experts / number of chosen
  bool list_all = false;     ///< pairs of every token and expert, those not chosen with weight 0
};

struct ExpertChoice {
  at::Tensor selected;  // [n_tokens, n_experts] bool
  ExpertPairs pairs;    // of the chosen, or of all
};

/// Chooses and lists in one call what a dozen tensor operations would; no gradient.
///
/// probs  [n_tokens, n_experts] float32, contiguous
/// Except under kThresholdTopK a token's choice does not depend on the other tokens.
/// Source: arXiv:2404.05567, sections 3.1 and 4.3; arXiv:2502.12455, section 4.
ExpertChoice choose_experts(const at::Tensor& probs, const ChoiceRule& rule);

/// The definition of right, of ATen calls; among equals another expert may win.
ExpertChoice choose_experts_ref(const at::Tensor& probs, const ChoiceRule& rule);

}  // namespace dsmoe
