#pragma once

#include <optional>

#include "model/moe/routing_plan.h"
#include "model/parameter_count.h"

namespace dsmoe {

/// Returns the active experts per token under a plan; empty if a policy of it is a threshold, whose
/// number of experts depends on the data. Throws Error if the plan does not fit the model.
std::optional<ActiveExperts> fixed_experts(const ModelConfig& config, const RoutingPlan& plan);

/// The same; throws Error where the number of experts depends on the data.
ActiveExperts planned_experts(const ModelConfig& config, const RoutingPlan& plan);

}  // namespace dsmoe
