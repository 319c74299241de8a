#include "model/io/target_rules.h"

#include <fmt/format.h>

namespace dsmoe {
namespace {

// 0 if the number varies from token to token.
int64_t experts_of(const RoutingPolicy& policy, int64_t n_experts) {
  switch (policy.selection) {
    case Selection::kAll:
      return n_experts;
    case Selection::kTopK:
      return policy.k;
    case Selection::kThreshold:
    case Selection::kThresholdTopK:
      break;
  }
  return 0;
}

}  // namespace

std::optional<FixedSelection> fixed_selection(const ModelConfig& config,
                                              const RoutingPlan& plan,
                                              std::string& why) {
  const bool has_moe = config.ffn.kind == FfnKind::kMoe;
  const bool has_moa = config.attention.kind == AttentionKind::kMoa;
  std::optional<FixedSelection> selection;
  for (size_t i = 0; i < static_cast<size_t>(config.n_layers); ++i) {
    const auto& layer = plan.layer(i);
    FixedSelection here;
    if (has_moe) here.moe = experts_of(layer.moe, config.ffn.n_experts);
    if (has_moa) here.moa = experts_of(layer.moa, config.attention.n_experts);
    if ((has_moe && here.moe == 0) || (has_moa && here.moa == 0)) {
      why =
          fmt::format("policy {}: tokens use different numbers of experts, but the target has one",
                      plan.to_string());
      return std::nullopt;
    }
    if (selection && (selection->moe != here.moe || selection->moa != here.moa)) {
      why =
          fmt::format("policy {}: layers use different numbers of experts, but the target has one",
                      plan.to_string());
      return std::nullopt;
    }
    selection = here;
  }
  return selection;
}

std::vector<std::string> common_obstacles(const ModelConfig& config) {
  std::vector<std::string> obstacles;
  const auto obstacle = [&](bool is_one, const char* text) {
    if (is_one) obstacles.emplace_back(text);
  };
  obstacle(config.norm != NormKind::kRmsNorm, "norm layer_norm: the target has RMSNorm only");
  obstacle(config.positions != PositionKind::kRotary,
           "positions learned: the target has rotary ones only");
  obstacle(config.bias, "bias: the target has no biases inside attention and experts");
  obstacle(config.ffn.kind != FfnKind::kMoe,
           "ffn.kind dense or partitioned: the target has FFN experts behind a softmax");
  obstacle(config.rope_scaling.kind != RopeScalingKind::kNone,
           "rope_scaling: the target does not scale rotary positions");
  if (config.ffn.kind == FfnKind::kMoe) add_router_obstacle(config.ffn.router, "moe", obstacles);
  return obstacles;
}

void add_router_obstacle(const RouterConfig& router,
                         const char* section,
                         std::vector<std::string>& obstacles) {
  if (!router.has_hidden()) return;
  obstacles.push_back(fmt::format(
      "{}.router.kind {}: the target's router is one matrix", section, row_of(router.kind).name));
}

std::vector<std::string> plain_expert_obstacles(const ModelConfig& config) {
  std::vector<std::string> obstacles;
  if (config.output_bias && !config.bias) {
    obstacles.emplace_back("output_bias: the target has no biases after attention and experts");
  }
  if (config.ffn.activation != Activation::kSwiglu) {
    obstacles.push_back(fmt::format("ffn.activation {}: the target has SwiGLU experts only",
                                    activation_name(config.ffn.activation)));
  }
  return obstacles;
}

std::string weight_obstacle(const RouterConfig& router,
                            int64_t selected,
                            int64_t n_experts,
                            bool target_renormalises) {
  if (selected == n_experts || router.renormalise == target_renormalises) return "";
  return fmt::format(
      "router.renormalise {} with {} of {} experts: the target {} the weights of those it selects "
      "by their sum",
      router.renormalise,
      selected,
      n_experts,
      target_renormalises ? "always divides" : "never divides");
}

}  // namespace dsmoe
