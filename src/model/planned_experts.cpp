#include "model/planned_experts.h"

#include <fmt/format.h>

#include "common/error.h"

namespace dsmoe {
namespace {

std::optional<double> experts_under(const RoutingPolicy& policy, int64_t n_experts) {
  switch (policy.selection) {
    case Selection::kAll:
      return static_cast<double>(n_experts);
    case Selection::kTopK:
      return static_cast<double>(policy.k);
    case Selection::kThreshold:
    case Selection::kThresholdTopK:
      break;
  }
  return std::nullopt;
}

}  // namespace

std::optional<ActiveExperts> fixed_experts(const ModelConfig& config, const RoutingPlan& plan) {
  auto active = all_experts(config);
  plan.validate(static_cast<size_t>(config.n_layers),
                active.moa.empty() ? 0 : config.attention.n_experts,
                active.moe.empty() ? 0 : config.ffn.n_experts);
  for (size_t i = 0; i < active.moe.size(); ++i) {
    const auto used = experts_under(plan.layer(i).moe, config.ffn.n_experts);
    if (!used) return std::nullopt;
    active.moe[i] = *used;
  }
  for (size_t i = 0; i < active.moa.size(); ++i) {
    const auto used = experts_under(plan.layer(i).moa, config.attention.n_experts);
    if (!used) return std::nullopt;
    active.moa[i] = *used;
  }
  return active;
}

ActiveExperts planned_experts(const ModelConfig& config, const RoutingPlan& plan) {
  if (auto active = fixed_experts(config, plan)) return *std::move(active);
  throw Error(
      fmt::format("plan: expected a policy with a fixed number of experts, got '{}'; its number of "
                  "experts depends on the data, measure it with 'dsmoe eval'",
                  plan.to_string()));
}

}  // namespace dsmoe
