#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "eval/routing_budget.h"

namespace dsmoe {

/// The limit of a routing plan; exactly one of the three.
struct BudgetTarget {
  std::optional<double> active_parameters = {};  ///< at most, not of embeddings
  std::optional<double> perplexity_rise = {};    ///< at most by this share
  std::optional<double> ms_per_token = {};       ///< at most, decoding one sequence

  /// Throws Error unless one is given.
  void validate() const;
};

struct BudgetOptions {
  BudgetTarget target;
  std::vector<RoutingPolicy> candidates = {};  ///< of each layer; empty: budget_candidates
  int64_t calibration_tokens = 1024;           ///< tokens per sensitivity pass, about
  int64_t held_out_tokens = 8192;              ///< per perplexity of a plan, about; 0: all
  int64_t batch = 8;                           ///< windows per forward pass
  Execution execution = Execution::kAuto;
  at::ScalarType compute_dtype = at::kFloat;
  /// Milliseconds of a decoding step of one sequence under a plan.
  std::function<double(const RoutingPlan&)> measure_ms = {};
  /// Called after each forward pass with the tokens that are scored and an estimate of all, which
  /// the last call meets.
  std::function<void(int64_t done, int64_t all)> on_progress = {};
  std::function<bool()> stop = {};  ///< true ends the search with StoppedError
};

/// A plan on the held-out windows.
struct MeasuredPlan {
  RoutingPlan plan = RoutingPolicy::all();
  double perplexity = 0;
  double active_parameters = 0;
};

struct BudgetResult {
  MeasuredPlan chosen;
  MeasuredPlan all;                     ///< every expert
  std::optional<MeasuredPlan> uniform;  ///< best top_k for all layers, within as many parameters
  MeasuredPlan uniform_threshold;       ///< lowest threshold for all layers, within as many
  double predicted_active_parameters = 0;
  double predicted_ms = 0;  ///< per token, of the chosen plan
  double ms = 0;
  double ms_all = 0;
  TimeModel time;
  std::string routing;  ///< the chosen plan as plan_to_yaml writes it
  bool depends_on_batch = false;
};

/// Default candidates of a layer: top_k and thresholds.
std::vector<RoutingPolicy> budget_candidates(const ModelConfig& config);

/// Finds the experts that each layer can leave out for the target, and compares the plan with one
/// policy for all layers. Measures sensitivities on some of the text's even windows, and everything
/// that it reports on some of the odd ones. Throws Error for a target that no candidates reach.
BudgetResult search_budget(Transformer& model, const EvalText& text, const BudgetOptions& options);

}  // namespace dsmoe
