#include <ATen/TensorOperators.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/topk.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>

#include "csrc_kernels/token_choice/token_choice.h"

namespace dsmoe {
namespace {

at::Tensor strongest(const at::Tensor& probs, int64_t k) {
  return at::zeros_like(probs, at::kBool).scatter_(1, std::get<1>(at::topk(probs, k, 1)), true);
}

at::Tensor chosen(const at::Tensor& probs, const RoutingRule& rule) {
  const auto above = probs * rule.threshold_scale > rule.epsilon;
  switch (rule.selection) {
    case Selection::kAll:
      return at::ones_like(above);
    case Selection::kTopK:
      return strongest(probs, rule.k);
    case Selection::kThreshold:
      return rule.max_experts == 0 ? above : above & strongest(probs, rule.max_experts);
    case Selection::kThresholdTopK:
      break;
  }
  const auto k = std::llround(above.sum(1).to(at::kDouble).mean().item<double>());
  return strongest(probs, std::max<int64_t>(k, 1));
}

}  // namespace

ExpertChoice choose_experts_ref(const at::Tensor& probs, const RoutingRule& rule, bool list_all) {
  auto selected = chosen(probs, rule);
  const auto none = selected.any(1, true).logical_not();
  if (rule.zero_active == ZeroActive::kAll) selected = selected | none;
  if (rule.zero_active == ZeroActive::kArgmax) selected = selected | (none & strongest(probs, 1));
  auto weights = at::where(selected, probs, at::zeros_like(probs));
  if (rule.renormalise) weights = weights / weights.sum(1, true).clamp_min(1e-20);
  const auto n_chosen = selected.sum(1, true).clamp_min(1).to(at::kFloat);
  if (rule.count_scale) weights = weights * (static_cast<double>(probs.size(1)) / n_chosen);
  const auto listed = list_all ? at::ones_like(selected) : selected;
  const auto rows = at::nonzero(listed.t());  // (expert, token)
  ExpertChoice choice{selected, {rows.select(1, 1).contiguous(), {}, {0}}};
  choice.pairs.weight_of_row = weights.t().masked_select(listed.t());
  for (int64_t e = 0; e < probs.size(1); ++e) {
    choice.pairs.offsets.push_back(choice.pairs.offsets.back() +
                                   listed.select(1, e).sum().item<int64_t>());
  }
  return choice;
}

}  // namespace dsmoe
