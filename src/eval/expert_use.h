#pragma once

#include <nlohmann/json.hpp>

#include <optional>
#include <vector>

#include "model/expert_usage.h"

namespace dsmoe {

/// How a text used the experts of a model's FFNs, over its layers.
struct ExpertUse {
  double active = 0;       ///< experts per token, mean over layers
  double least = 0;        ///< of the layer that used fewest
  double most = 0;         ///< of the layer that used most
  double without = 0;      ///< share of tokens that used none, mean over layers
  double mean_weight = 0;  ///< mean router_prob of what was used: the mean open gate
};

/// None for a model without FFN experts.
std::optional<ExpertUse> summarise_ffn_experts(const ExpertUsage& usage);

/// For each kind of experts a list of layers with `active`, `without`, `mean_weight` and
/// `tokens_per_expert`: one row of a map of layers by texts.
nlohmann::ordered_json expert_use_to_json(const ExpertUsage& usage);

}  // namespace dsmoe
