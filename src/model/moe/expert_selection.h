#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "csrc_kernels/token_choice/token_choice.h"
#include "model/moe/routing_policy.h"

namespace dsmoe {

/// The experts of each token and their weights, in the form that every selection can take.
struct ExpertSelection {
  at::Tensor selected;         // [n_tokens, n_experts] bool
  at::Tensor expert_weights;   // [n_tokens, n_experts], exactly zero where not selected
  int64_t most_per_token = 0;  // that any token can have selected; 0: all of them
};

/// The experts that a policy selects, [n_tokens, n_experts] bool; no gradient.
///
/// threshold_scale  experts count where threshold_scale * router_prob > epsilon
at::Tensor selected_experts(const at::Tensor& router_probs,
                            const RoutingPolicy& policy,
                            double threshold_scale);

/// Applies a policy's selection; weights are the router's probabilities as they are, or divided by
/// their sum over the selected if `renormalise`.
///
/// router_probs  [n_tokens, n_experts]
/// Gradients reach router_probs through the weights of the selected experts; the choice itself has
/// none. Under threshold a token may end without an expert if epsilon >= 1; its weights are all
/// zero. Source: arXiv:2404.05567, sections 3.1 and 4.3 (footnote 1 for the normalised threshold).
ExpertSelection select_experts(const at::Tensor& router_probs,
                               const RoutingPolicy& policy,
                               bool renormalise);

/// The (token, expert) pairs of a selection, sorted by expert, then by token.
struct ExpertDispatch {
  at::Tensor token_of_row;       // [n_rows] int64
  at::Tensor expert_of_row;      // [n_rows] int64
  at::Tensor weight_of_row;      // [n_rows]
  std::vector<int64_t> offsets;  // n_experts + 1: rows offsets[i] .. offsets[i + 1] are expert i's
};

/// Lists the selected pairs for sparse execution.
ExpertDispatch make_dispatch(const ExpertSelection& selection);

/// The policy's selection as a rule for choose_experts; threshold_scale as above.
RoutingRule choice_rule(const RoutingPolicy& policy, double threshold_scale);

/// Resolves kAuto: sparse where the arithmetic that it saves costs more than its calls.
/// expert_parameters: of one expert's matrices.
bool runs_sparse(const RoutingPolicy& policy, int64_t n_experts, int64_t expert_parameters);

}  // namespace dsmoe
