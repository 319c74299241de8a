#pragma once

#include <string>
#include <vector>

#include "model/moe/routing_policy.h"

namespace dsmoe {

/// The policies of one layer's attention experts and FFN experts.
struct LayerRouting {
  RoutingPolicy moa;
  RoutingPolicy moe;
  bool operator==(const LayerRouting&) const = default;
};

/// One LayerRouting per layer, or one for all of them.
class RoutingPlan {
 public:
  /// The same policy for both kinds in every layer; a policy converts implicitly.
  RoutingPlan(RoutingPolicy policy)
      : uniform_{policy, policy} {}  // NOLINT(google-explicit-constructor)
  explicit RoutingPlan(LayerRouting uniform) : uniform_(uniform) {}
  explicit RoutingPlan(std::vector<LayerRouting> layers) : layers_(std::move(layers)) {}

  const LayerRouting& layer(size_t index) const {
    return layers_.empty() ? uniform_ : layers_.at(index);
  }
  RoutingPlan with(Execution execution) const;

  /// Throws Error if a policy does not fit the model or the plan has another number of layers. A
  /// count of 0: the model has no experts of that kind.
  void validate(size_t n_layers, int64_t n_moa_experts, int64_t n_moe_experts) const;

  std::string to_string() const;
  bool operator==(const RoutingPlan&) const = default;

 private:
  LayerRouting uniform_;
  std::vector<LayerRouting> layers_;
};

/// Reads one policy, `moe:top_k=4;moa:all`, or `routing=FILE.yaml` (a list `layers` of maps with
/// the keys moe and moa). Bare top_k means the FFN experts with attention dense; bare thresholds
/// apply to both kinds. Throws Error.
RoutingPlan parse_routing_plan(const std::string& text);

}  // namespace dsmoe
