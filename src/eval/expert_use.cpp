#include "eval/expert_use.h"

#include <algorithm>

namespace dsmoe {
namespace {

double per_token(int64_t count, int64_t n_tokens) {
  return n_tokens > 0 ? static_cast<double>(count) / static_cast<double>(n_tokens) : 0.0;
}

nlohmann::ordered_json layers_to_json(const std::vector<LayerUsage>& layers, int64_t n_tokens) {
  auto list = nlohmann::ordered_json::array();
  for (const auto& layer : layers) {
    list.push_back({{"active", per_token(layer.n_selected(), n_tokens)},
                    {"without", per_token(layer.tokens_without_expert, n_tokens)},
                    {"mean_weight", layer.mean_selected_prob()},
                    {"tokens_per_expert", layer.tokens_per_expert}});
  }
  return list;
}

}  // namespace

std::optional<ExpertUse> summarise_ffn_experts(const ExpertUsage& usage) {
  if (usage.moe().empty()) return std::nullopt;
  const auto active = usage.active_experts().moe;
  ExpertUse use{.active = mean_over_layers(active),
                .least = *std::min_element(active.begin(), active.end()),
                .most = *std::max_element(active.begin(), active.end())};
  std::vector<double> without;
  std::vector<double> weights;
  for (const auto& layer : usage.moe()) {
    without.push_back(per_token(layer.tokens_without_expert, usage.n_tokens()));
    weights.push_back(layer.mean_selected_prob());
  }
  use.without = mean_over_layers(without);
  use.mean_weight = mean_over_layers(weights);
  return use;
}

nlohmann::ordered_json expert_use_to_json(const ExpertUsage& usage) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  const auto add = [&](const char* kind, const std::vector<LayerUsage>& layers) {
    if (!layers.empty()) json[kind] = layers_to_json(layers, usage.n_tokens());
  };
  add("moe", usage.moe());
  add("moa", usage.moa());
  return json;
}

}  // namespace dsmoe
