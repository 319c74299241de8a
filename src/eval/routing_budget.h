#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/stop_signal.h"
#include "eval/perplexity.h"
#include "eval/time_model.h"

namespace dsmoe {

/// One policy of one layer's experts: what it costs and what it saves where all other layers use
/// every expert.
struct BudgetChoice {
  RoutingPolicy policy;
  double nats = 0;        ///< per token
  double parameters = 0;  ///< active, of the whole model
  double experts = 0;     ///< per token, of this layer and kind
};

/// The choices of one layer and kind on the lower convex hull, from every expert to the cheapest:
/// each saves parameters at a lower price in nats than the next.
struct LayerChoices {
  size_t layer = 0;
  bool is_moa = false;
  std::vector<BudgetChoice> choices;
};

/// What each layer's experts contribute, measured on one text.
struct Sensitivity {
  ModelConfig config;
  double nats = 0;        ///< per token, with every expert
  double parameters = 0;  ///< active, with every expert
  ExpertCounts experts;   ///< with every expert
  std::vector<LayerChoices> layers;
};

/// Measures every candidate in every layer and kind, alone: n_layers x kinds x candidates passes
/// over the text of `options`, of whose plan only the execution is used. Candidates that do not fit
/// a kind (top_k above its experts) are left out. Throws StoppedError after a stop.
Sensitivity measure_sensitivity(Transformer& model,
                                const EvalText& text,
                                const std::vector<RoutingPolicy>& candidates,
                                const PerplexityOptions& options);

/// Passes of measure_sensitivity besides the one with every expert.
int64_t n_sensitivity_passes(const ModelConfig& config,
                             const std::vector<RoutingPolicy>& candidates);

/// A plan between every expert and the cheapest choice of every layer.
struct BudgetPlan {
  RoutingPlan plan{RoutingPolicy::all()};
  double nats = 0;        ///< per token, predicted: losses of layers add
  double parameters = 0;  ///< active, predicted
  ExpertCounts experts;   ///< predicted
};

/// Plans by falling cost. Element 0 uses every expert; each step gives up the experts that cost the
/// fewest nats per saved parameter. Each plan is optimal for its parameter count if the losses of
/// layers add.
std::vector<BudgetPlan> plan_steps(const Sensitivity& sensitivity);

/// The first step that is within `parameters`. Throws Error naming the least that is possible.
const BudgetPlan& within_parameters(const std::vector<BudgetPlan>& steps, double parameters);

/// The last step whose measured nats per token are within `nats`; measures about log2(steps) plans.
const BudgetPlan& within_nats(const std::vector<BudgetPlan>& steps,
                              double nats,
                              const std::function<double(const RoutingPlan&)>& measure);

/// The first step that the model times within `ms`. Throws Error naming the least that is possible.
const BudgetPlan& within_time(const std::vector<BudgetPlan>& steps,
                              const TimeModel& time,
                              double ms);

/// The file that `routing=FILE` reads: a list `layers` with the policies of both kinds.
std::string plan_to_yaml(const RoutingPlan& plan, const ModelConfig& config);

}  // namespace dsmoe
