#include "model/moe/batch_dependence.h"

#include <fmt/format.h>

#include "common/error.h"

namespace dsmoe {

bool depends_on_batch(const RoutingPlan& plan, const ModelConfig& config) {
  const auto depends = [](const RoutingPolicy& policy) {
    return policy.selection == Selection::kThresholdTopK;
  };
  const bool has_moa = config.attention.kind == AttentionKind::kMoa;
  for (int64_t i = 0; i < config.n_layers; ++i) {
    const auto& layer = plan.layer(static_cast<size_t>(i));
    if (has_moa && depends(layer.moa)) return true;
    if (config.has_ffn_experts(i) && depends(layer.moe)) return true;
  }
  return false;
}

void require_batch_independence(const RoutingPlan& plan,
                                const ModelConfig& config,
                                const std::string& who) {
  if (!depends_on_batch(plan, config)) return;
  throw Error(
      fmt::format("{}: expected a policy under which a text does not depend on the tokens that "
                  "share its passes, got {} with threshold_top_k; take threshold=E or top_k=K, or "
                  "leave {} out",
                  who,
                  plan.to_string(),
                  who));
}

}  // namespace dsmoe
