#pragma once

#include <string>
#include <vector>

namespace dsmoe {

/// A point of the quality against active parameters curve.
struct PolicyPoint {
  std::string policy;     ///< as RoutingPlan::to_string writes it
  double share = 0;       ///< active parameters over all that are not embeddings
  double perplexity = 0;  ///< not finite: not drawn
};

/// The policy without the numbers that vary along a curve: `top_k`, `threshold`, `threshold,max=6`,
/// `moe:top_k;moa:threshold`. Bare top_k is written with the dense attention experts that it means.
std::string policy_family(const std::string& policy);

/// Draws perplexity against active share: a line for each family of policies with a number beside
/// each point, and a horizontal line at the perplexity of `all`.
std::string curve_to_svg(const std::vector<PolicyPoint>& points);

}  // namespace dsmoe
