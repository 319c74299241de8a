#pragma once

#include <optional>
#include <string>
#include <vector>

#include "model/model_config.h"
#include "model/moe/routing_plan.h"

namespace dsmoe {

/// Experts per token of each kind, the same in every layer; all of them for `all`, 0 where the
/// model has no experts of the kind.
struct FixedSelection {
  int64_t moe = 0;
  int64_t moa = 0;
};

/// Empty if the plan differs between layers or the count depends on the token; `why` is then the
/// reason.
std::optional<FixedSelection> fixed_selection(const ModelConfig& config,
                                              const RoutingPlan& plan,
                                              std::string& why);

/// Features that no target with experts can express: a norm other than RMSNorm, learned positions,
/// biases inside attention and experts, a router of more than one matrix.
std::vector<std::string> common_obstacles(const ModelConfig& config);

/// Adds an obstacle if the router has a hidden layer: routers of the target are one matrix.
/// section  of the key, moe or moa
void add_router_obstacle(const RouterConfig& router,
                         const char* section,
                         std::vector<std::string>& obstacles);

/// Features that targets with SwiGLU experts without biases lack: other activations, and biases
/// after attention and experts.
std::vector<std::string> plain_expert_obstacles(const ModelConfig& config);

/// Returns the reason why the weights of `selected` of `n_experts` experts do not fit a target that
/// always, or never, divides them by their sum; empty if they fit. With every expert selected both
/// fit.
std::string weight_obstacle(const RouterConfig& router,
                            int64_t selected,
                            int64_t n_experts,
                            bool target_renormalises);

}  // namespace dsmoe
