#include "model/moe/expert_selection.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/gt.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/scatter.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

namespace dsmoe {
namespace {

void check_policy(const at::Tensor& router_probs, const RoutingPolicy& policy) {
  TORCH_CHECK(router_probs.dim() == 2,
              "select_experts: expected router_probs [n_tokens, n_experts], got ",
              router_probs.sizes());
  TORCH_CHECK(
      policy.selection != Selection::kTopK || (policy.k >= 1 && policy.k <= router_probs.size(1)),
      "select_experts: top_k = ",
      policy.k,
      " is outside [1, n_experts = ",
      router_probs.size(1),
      "]");
}

// From zeros, never from empty: unselected entries must be false whatever the memory held.
at::Tensor strongest(const at::Tensor& probs, int64_t k) {
  const auto indices = std::get<1>(at::topk(probs, k, /*dim=*/1));  // [n_tokens, k]
  return at::zeros_like(probs, probs.options().dtype(at::kBool)).scatter_(1, indices, true);
}

}  // namespace

at::Tensor selected_experts(const at::Tensor& router_probs,
                            const RoutingPolicy& policy,
                            double threshold_scale) {
  check_policy(router_probs, policy);
  const auto probs = router_probs.detach();
  const int64_t n_experts = probs.size(1);
  const auto above_threshold = [&] { return at::gt(probs * threshold_scale, policy.epsilon); };
  switch (policy.selection) {
    case Selection::kAll:
      return at::ones_like(probs, probs.options().dtype(at::kBool));
    case Selection::kTopK:
      return strongest(probs, policy.k);
    case Selection::kThreshold: {
      const auto selected = above_threshold();
      const bool capped = policy.max_experts > 0 && policy.max_experts < n_experts;
      return capped ? at::logical_and(selected, strongest(probs, policy.max_experts)) : selected;
    }
    case Selection::kThresholdTopK: {
      const auto n_tokens = static_cast<double>(std::max<int64_t>(probs.size(0), 1));
      const auto count = above_threshold().sum().item<int64_t>();
      const auto k = static_cast<int64_t>(std::llround(static_cast<double>(count) / n_tokens));
      return strongest(probs, std::clamp<int64_t>(k, 1, n_experts));
    }
  }
  TORCH_CHECK(false, "select_experts: unknown selection");
}

ExpertSelection select_experts(const at::Tensor& router_probs,
                               const RoutingPolicy& policy,
                               bool renormalise) {
  check_policy(router_probs, policy);
  if (policy.selection == Selection::kAll && !renormalise) {
    return {at::ones_like(router_probs, router_probs.options().dtype(at::kBool)), router_probs};
  }
  const auto threshold_scale = static_cast<double>(router_probs.size(1));
  if (!at::GradMode::is_enabled() && has_choice_kernel(router_probs)) {
    auto rule = choice_rule(policy, threshold_scale);
    rule.renormalise = renormalise;
    const auto chosen = choose_weights(router_probs.contiguous(), rule);
    return {chosen.selected, chosen.weights, most_selected(choice_rule(policy, threshold_scale))};
  }
  const auto selected = selected_experts(router_probs, policy, threshold_scale);
  auto weights = at::where(selected, router_probs, at::zeros_like(router_probs));
  if (renormalise) {
    // A token without an expert keeps weights of zero.
    weights = weights / weights.sum(1, /*keepdim=*/true).clamp_min(1e-20);
  }
  return {selected, weights, most_selected(choice_rule(policy, threshold_scale))};
}

ExpertDispatch make_dispatch(const ExpertSelection& selection) {
  const auto by_expert = selection.selected.t().contiguous();  // [n_experts, n_tokens]
  const auto pairs = at::nonzero(by_expert);                   // [n_rows, 2], (expert, token)
  const auto expert_of_row = pairs.select(1, 0).contiguous();
  const auto token_of_row = pairs.select(1, 1).contiguous();
  const int64_t n_experts = selection.selected.size(1);
  const auto flat = token_of_row * n_experts + expert_of_row;
  const auto tokens_per_expert = by_expert.sum(1).to(at::kLong).cpu();
  std::vector<int64_t> offsets(static_cast<size_t>(n_experts) + 1, 0);
  const auto* counts = tokens_per_expert.const_data_ptr<int64_t>();
  for (int64_t i = 0; i < n_experts; ++i) offsets[i + 1] = offsets[i] + counts[i];
  return {token_of_row,
          expert_of_row,
          selection.expert_weights.reshape({-1}).index_select(0, flat),
          std::move(offsets)};
}

RoutingRule choice_rule(const RoutingPolicy& policy, double threshold_scale) {
  return {.selection = policy.selection,
          .k = policy.k,
          .epsilon = policy.epsilon,
          .threshold_scale = threshold_scale,
          .max_experts = policy.max_experts};
}

bool runs_sparse(const RoutingPolicy& policy, int64_t n_experts, int64_t expert_parameters) {
  if (policy.execution != Execution::kAuto) return policy.execution == Execution::kSparse;
  if (policy.selection == Selection::kAll) return false;
  if (policy.selection == Selection::kTopK && 2 * policy.k > n_experts) return false;
  // Measured on 2 cores in float32, 1 to 2,048 tokens: experts of 65,536 parameters pay for their
  // calls at any number of tokens, experts of 18,432 at none.
  constexpr int64_t kLargeExpert = 40'000;
  return expert_parameters >= kLargeExpert;
}

}  // namespace dsmoe
