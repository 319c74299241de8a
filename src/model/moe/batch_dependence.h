#pragma once

#include <string>

#include "model/model_config.h"
#include "model/moe/routing_plan.h"

namespace dsmoe {

/// Returns true if the experts of a token depend on the other tokens of its forward pass: the plan
/// has threshold_top_k for experts that the model has. Texts and numbers then change with the
/// batch.
bool depends_on_batch(const RoutingPlan& plan, const ModelConfig& config);

/// Throws Error if depends_on_batch. For options that guarantee results independent of the batch.
///
/// who  the option that gives the guarantee, for the message
void require_batch_independence(const RoutingPlan& plan,
                                const ModelConfig& config,
                                const std::string& who);

}  // namespace dsmoe
