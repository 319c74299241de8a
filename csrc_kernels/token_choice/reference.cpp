#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/gt.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/logical_or.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/scatter.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "csrc_kernels/token_choice/token_choice.h"

namespace dsmoe {
namespace {

// From zeros, never from empty: unselected entries must be false whatever the memory held.
at::Tensor strongest(const at::Tensor& probs, int64_t k) {
  const auto indices = std::get<1>(at::topk(probs, k, /*dim=*/1));  // [n_tokens, k]
  return at::zeros_like(probs, probs.options().dtype(at::kBool)).scatter_(1, indices, true);
}

// [n_tokens, n_experts] bool
at::Tensor selected_experts(const at::Tensor& probs, const RoutingRule& rule) {
  const int64_t n_experts = probs.size(1);
  const auto above_threshold = [&] { return at::gt(probs * rule.threshold_scale, rule.epsilon); };
  switch (rule.selection) {
    case Selection::kAll:
      return at::ones_like(probs, probs.options().dtype(at::kBool));
    case Selection::kTopK:
      return strongest(probs, rule.k);
    case Selection::kThreshold: {
      const auto selected = above_threshold();
      const bool capped = rule.max_experts > 0 && rule.max_experts < n_experts;
      return capped ? at::logical_and(selected, strongest(probs, rule.max_experts)) : selected;
    }
    case Selection::kThresholdTopK: {
      const auto n_tokens = static_cast<double>(std::max<int64_t>(probs.size(0), 1));
      const auto count = above_threshold().sum().item<int64_t>();
      const auto k = static_cast<int64_t>(std::llround(static_cast<double>(count) / n_tokens));
      return strongest(probs, std::clamp<int64_t>(k, 1, n_experts));
    }
  }
  TORCH_CHECK(false, "choose_experts: unknown selection");
}

// The same with the experts of tokens that selected none.
at::Tensor with_zero_active(const at::Tensor& selected, const at::Tensor& probs, ZeroActive rule) {
  if (rule == ZeroActive::kZero) return selected;
  const auto none = selected.any(1, /*keepdim=*/true).logical_not();  // [n_tokens, 1]
  if (rule == ZeroActive::kAll) return at::logical_or(selected, none);
  return at::where(none, strongest(probs, 1), selected);
}

}  // namespace

TokenChoice choose_experts_ref(const at::Tensor& router_probs, const RoutingRule& rule) {
  const auto probs = router_probs.detach();
  const auto selected = with_zero_active(selected_experts(probs, rule), probs, rule.zero_active);
  auto weights = at::where(selected, router_probs, at::zeros_like(router_probs));
  // Exactly 0 for a closed gate and the gate itself for an open one; the derivative is 1 for both.
  if (rule.straight_through) weights = (weights - router_probs).detach() + router_probs;
  // A token without an expert keeps weights of zero.
  if (rule.renormalise) weights = weights / weights.sum(1, /*keepdim=*/true).clamp_min(1e-20);
  if (rule.count_scale) {
    const auto n_selected = selected.sum(1, /*keepdim=*/true).clamp_min(1);
    weights =
        weights * (static_cast<double>(probs.size(1)) / n_selected.to(router_probs.scalar_type()));
  }
  return {selected, weights, most_selected(rule)};
}

}  // namespace dsmoe
