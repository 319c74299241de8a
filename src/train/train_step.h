#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "data/batch.h"
#include "distributed/gradient_reducer.h"
#include "distributed/rank_group.h"
#include "model/moe/routing_plan.h"
#include "model/transformer.h"
#include "train/losses.h"
#include "train/optimizer.h"
#include "train/parameter_shards.h"
#include "train/step_timer.h"
#include "train/train_config.h"

namespace dsmoe {

/// Settings of a step besides model, optimizer and data.
struct StepSettings {
  RoutingPlan plan;
  ForwardOptions forward;
  LossConfig loss;
  double clip_norm;
  bool fast_float32;
};

/// The settings of a resolved config: compute_dtype is no longer `auto`.
StepSettings step_settings(const RunConfig& config);

/// `auto` decided for this CPU, or bfloat16 elsewhere; warns where bfloat16 would be slow.
ComputeDtype resolve_compute_dtype(ComputeDtype dtype, DeviceKind device = DeviceKind::kCpu);

/// Chooses the library of float32 products for the whole process: oneDNN (about twice as fast as
/// MKL on AMD CPUs) or MKL. Keeps MKL on a CPU with AMX, because oneDNN would round to bfloat16
/// there. Returns true for oneDNN.
bool use_fast_float32_products(bool fast);

/// Results of a step, over the micro-batches of all ranks.
struct StepResult {
  Loss loss;
  double gradient_norm = 0;  ///< before clipping
  double learning_rate = 0;
  bool stop = false;  ///< a rank received a stop signal before the end of this step
};

/// Values that the micro-batches of one step share.
struct StepContext {
  int64_t n_micro_batches = 1;  ///< of all ranks
  StepRouting routing;          ///< empty unless train.loss.mi_scope is global
};

/// One micro-batch after its backward pass.
struct MicroBatchResult {
  ModelOutput output;
  Loss loss;  ///< its share of the step's
};

/// The micro-batches of a step that are this rank's. Throws Error unless all ranks have as many.
int64_t share_micro_batches(int64_t accumulation, const RankGroup& ranks);

/// The parts of one optimizer step, in calling order. `Trainer::train_step` calls them one by one,
/// `bench --train` calls run().
class TrainStep {
 public:
  /// model and optimizer over the same parameters; optimizer, ranks and shards outlive this.
  ///
  /// shards  of the model's parameters, the optimizer is over their pieces; null: every rank keeps
  ///         whole parameters
  TrainStep(Transformer model,
            Optimizer& optimizer,
            StepSettings settings,
            RankGroup& ranks,
            ParameterShards* shards = nullptr);

  /// Takes rank 0's weights and averages gradients from now on; nothing on one rank.
  void join_ranks(const DistributedConfig& config);

  /// Prepares a step. With a global mutual-information loss and several micro-batches this takes
  /// a forward pass over all of them.
  ///
  /// batches  this rank's share of `accumulation` x [batch, seq]
  StepContext begin(const std::vector<Batch>& batches);

  /// Adds the gradients of one micro-batch; with `is_last` those of the whole step are averaged
  /// over ranks.
  ///
  /// timer  receives the time of forward pass, loss and backward pass; may be null
  MicroBatchResult forward_backward(const Batch& batch,
                                    const StepContext& context,
                                    bool is_last,
                                    StepTimer* timer = nullptr);

  /// Replaces the loss by its sum over ranks, the stop flag by that of any rank, and every other
  /// number, as many on each rank, by its sum.
  void reduce(StepResult& result, const std::vector<double*>& others = {});

  /// Measures the gradients for the clipping of update(). Returns their global 2-norm.
  double prepare_clipping();

  /// Applies the gradients to the weights of all ranks.
  void update(double learning_rate);

  /// Drops the gradients; every 16th step returns unused memory. Steps count from 1.
  void end(int64_t step);

  /// A whole step without guards. Throws RunError for a non-finite loss or gradient, before the
  /// weights are touched.
  ///
  /// timer  receives the time of every part; may be null
  StepResult run(const std::vector<Batch>& batches,
                 int64_t step,
                 double learning_rate,
                 StepTimer* timer = nullptr);

 private:
  ForwardOptions options_for(const Batch& batch) const;
  StepRouting measure_routing(const std::vector<Batch>& batches);

  Transformer model_;
  Optimizer& optimizer_;
  StepSettings settings_;
  RankGroup& ranks_;
  ParameterShards* shards_;
  double squared_norm_ = 0;                   // of the gradients of all shards
  std::unique_ptr<GradientReducer> reducer_;  // after the model: it observes the parameters
  bool is_first_step_ = true;
};

}  // namespace dsmoe
