#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "eval/perplexity.h"

namespace dsmoe {

/// Quality and cost of a model under one routing plan.
struct CurvePoint {
  RoutingPlan plan{RoutingPolicy::all()};
  PerplexityResult quality;
  double active_parameters = 0;
  double share = 0;                 ///< of the parameters that are not embeddings
  std::optional<double> rise = {};  ///< of the perplexity over the point of `all`, as a share
  double flops_per_token = 0;  ///< of a forward pass over the window; see forward_flops_per_token
  double ms_per_token = 0;     ///< of that pass, measured
};

/// `all`, and for experts of either kind top_k in powers of two and thresholds from low to high.
std::vector<RoutingPlan> curve_plans(const ModelConfig& config);

/// Evaluates the text once per plan and passes each point on at once, without its rise if `all`
/// comes later. After a stop it returns the points so far, without the one that was interrupted.
std::vector<CurvePoint> measure_curve(
    Transformer& model,
    const EvalText& text,
    const std::vector<RoutingPlan>& plans,
    PerplexityOptions options,
    const std::function<void(const CurvePoint& point)>& on_point = {});

}  // namespace dsmoe
