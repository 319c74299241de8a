#pragma once

#include <string>

#include "model/model_config.h"
#include "model/moe/routing_plan.h"

namespace dsmoe {

/// Whether a token's experts depend on the tokens that share its forward pass: true if the plan has
/// threshold_top_k for experts that the model has. Then texts and numbers change with the batch.
bool depends_on_batch(const RoutingPlan& plan, const ModelConfig& config);

/// Throws Error where depends_on_batch, for what promises a text that its company does not change.
///
/// who  option that promises it, for the message
void require_batch_independence(const RoutingPlan& plan,
                                const ModelConfig& config,
                                const std::string& who);

}  // namespace dsmoe
