#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "csrc_kernels/common/routing_rule.h"

namespace dsmoe {

/// Method that computes the selected experts. For one selection all three give the same output.
enum class Execution {
  kAuto,    ///< the faster of the two for this call
  kDense,   ///< compute every expert, weight the unselected by zero
  kSparse,  ///< compute only the selected experts
};

/// Selection and execution of one layer's experts; a value.
struct RoutingPolicy {
  Selection selection = Selection::kAll;
  Execution execution = Execution::kAuto;
  int64_t k = 0;            ///< experts per token, for kTopK
  double epsilon = 0.0;     ///< compared with n_experts * router_prob, strictly greater
  int64_t max_experts = 0;  ///< cap per token under kThreshold; 0: none

  static RoutingPolicy all() { return {}; }
  static RoutingPolicy top_k(int64_t k) { return {.selection = Selection::kTopK, .k = k}; }
  static RoutingPolicy threshold(double epsilon, int64_t max_experts = 0) {
    return {.selection = Selection::kThreshold, .epsilon = epsilon, .max_experts = max_experts};
  }
  static RoutingPolicy threshold_top_k(double epsilon) {
    return {.selection = Selection::kThresholdTopK, .epsilon = epsilon};
  }
  RoutingPolicy with(Execution value) const {
    RoutingPolicy policy = *this;
    policy.execution = value;
    return policy;
  }

  /// Returns the selection rule without the treatment of weights, which a layer adds.
  /// threshold_scale  n_experts for a softmax, 1 for sigmoids
  RoutingRule rule(double threshold_scale) const {
    return {.selection = selection,
            .k = k,
            .epsilon = epsilon,
            .threshold_scale = threshold_scale,
            .max_experts = max_experts};
  }

  /// Throws Error naming `who` if the numbers do not fit a layer of n_experts.
  void validate(int64_t n_experts, const std::string& who) const;

  /// Returns the policy as written on the command line: `top_k=4`, `threshold=0.48,max=6`. Omits
  /// the execution.
  std::string to_string() const;

  bool operator==(const RoutingPolicy&) const = default;
};

/// Reads `all`, `top_k=4`, `threshold=0.48`, `threshold=0.48,max=6` or `threshold_top_k=0.48`.
/// Throws Error.
RoutingPolicy parse_routing_policy(const std::string& text);

/// Reads `auto`, `dense` or `sparse`. Throws Error.
Execution parse_execution(const std::string& text);

}  // namespace dsmoe
