#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/model_output.h"
#include "model/moe/routing_plan.h"
#include "train/train_config.h"

namespace dsmoe {

/// Entropies of the distributions p_t of a softmax router, in nats.
struct RouterEntropies {
  double token = 0;  ///< mean over tokens of the entropy of p_t
  double mean = 0;   ///< entropy of the mean of p_t
  double mutual_information() const { return mean - token; }  ///< >= 0
};

/// Expert use of one layer over the steps since the last report.
struct LayerRoutingStats {
  std::vector<double> load;   ///< share of the tokens that each expert served, see ExpertWatch
  double active_experts = 0;  ///< mean number of experts selected per token
  std::optional<RouterEntropies> entropies;  ///< of a softmax router
};

/// One entry per layer; empty for a kind that the model lacks. The entropies are those of the
/// last step.
struct RoutingStats {
  std::vector<LayerRoutingStats> moe;
  std::vector<LayerRoutingStats> moa;
};

/// Watches how routers use their experts while a model trains.
///
/// An expert serves a token that selects it; where all experts are selected, one that gives it at
/// least the uniform share 1 / n_experts of its probability.
class ExpertWatch {
 public:
  ExpertWatch(const GuardConfig& config, RoutingPlan plan);

  /// Adds one micro-batch. `measures`: entropies too, at more cost than counts; sigmoid routers
  /// have none.
  void add(const ModelOutput& output, bool measures);

  /// The counts of this step. With several ranks the caller replaces each by its sum over ranks
  /// before the step ends.
  std::vector<double*> step_numbers();

  /// Ends a step. Returns one text per alarm that begins with this step: an expert without load for
  /// dead_expert_steps, a layer without any selected expert, a collapsed router. An alarm is raised
  /// again only after it has ended.
  std::vector<std::string> end_step();

  /// Statistics of the steps since the last call.
  RoutingStats take_stats();

 private:
  struct Layer {
    std::string name;                 // `layer 2 moe`
    std::vector<int64_t> idle_steps;  // without load, up to now, per expert
    // Of the steps since the last report:
    std::vector<double> load;  // tokens per expert
    double n_selected = 0;     // pairs of token and expert
    double n_tokens = 0;
    // Of this step:
    std::vector<double> step_load;
    double step_selected = 0;
    double step_tokens = 0;
    bool counts_selected = false;     // each count is one of selected pairs too
    std::vector<at::Tensor> pending;  // counted on the device, not read yet: one per micro-batch
    // Of the last measured step:
    std::vector<double> sum_probs;
    double sum_entropy = 0;
    double n_measured = 0;  // tokens
    bool is_unused = false;
    bool is_collapsed = false;
  };
  void add_record(Layer& layer, const RoutingRecord& record, bool selects_all, bool measures);
  void collect();
  static void check_use(Layer& layer, std::vector<std::string>& alarms);
  static void close_step(Layer& layer);
  void check(Layer& layer, std::vector<std::string>& alarms);
  static LayerRoutingStats take(Layer& layer);

  GuardConfig config_;
  RoutingPlan plan_;
  std::vector<Layer> moe_, moa_;
};

}  // namespace dsmoe
