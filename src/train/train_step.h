#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "data/batch.h"
#include "distributed/gradient_reducer.h"
#include "distributed/rank_group.h"
#include "model/moe/routing_plan.h"
#include "model/transformer.h"
#include "train/losses.h"
#include "train/optimizer.h"
#include "train/step_timer.h"
#include "train/train_config.h"

namespace dsmoe {

/// What a step needs beside model, optimizer and data.
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

/// Chooses the library of float32 products for the whole process: oneDNN, which is about twice as
/// fast as MKL on AMD CPUs, or MKL. Stays with MKL where the CPU has AMX, on which oneDNN would
/// round to bfloat16. Returns whether it is oneDNN.
bool use_fast_float32_products(bool fast);

struct StepResult {
  Loss loss;
  double gradient_norm = 0;  ///< before clipping
  double learning_rate = 0;
  bool stop = false;  ///< some rank was asked to stop during this step
};

/// What looks into a step, or changes it; each may be empty.
struct StepHooks {
  std::function<void(const ModelOutput& output)> on_output;  ///< of each micro-batch
  std::function<void(at::Tensor& loss)> on_loss;             ///< of each, before backward
  /// Numbers of this step that are replaced by their sums over ranks, as many on each.
  std::function<std::vector<double*>()> numbers_to_add;
  std::function<void()> on_gradients;  ///< before they are measured
  /// False: the update is dropped. Empty: a non-finite loss or gradient throws.
  std::function<bool(const StepResult& result, const std::vector<Batch>& batches)> accepts;
};

/// The micro-batches of a step that are this rank's. Throws Error unless all ranks have as many.
int64_t share_micro_batches(int64_t accumulation, const RankGroup& ranks);

/// The arithmetic of one optimizer step: what training runs and what `bench --train` measures.
class TrainStep {
 public:
  /// model and optimizer over the same parameters; the optimizer and the ranks outlive this.
  TrainStep(Transformer model, Optimizer& optimizer, StepSettings settings, RankGroup& ranks);

  /// Takes rank 0's weights and averages gradients from now on; nothing on one rank.
  void join_ranks(const DistributedConfig& config);

  /// One update from the gradients of all micro-batches of all ranks. The result is that of all
  /// ranks, on each of them.
  ///
  /// batches  this rank's share of `accumulation` x [batch, seq]
  /// step     its number, counted from 1, for messages
  /// timer    receives the time of every part; may be null
  /// Throws RunError for a non-finite loss or gradient, before the weights are touched, unless
  /// `accepts` decides otherwise.
  StepResult run(const std::vector<Batch>& batches,
                 int64_t step,
                 double learning_rate,
                 StepTimer* timer = nullptr);

  void set_hooks(StepHooks hooks) { hooks_ = std::move(hooks); }

 private:
  ForwardOptions options_for(const Batch& batch) const;
  StepRouting measure_routing(const std::vector<Batch>& batches);
  void backward(const at::Tensor& loss, bool is_last);
  void update(double learning_rate);
  void add_over_ranks(StepResult& result);
  void check_finite(const StepResult& result, const std::vector<Batch>& batches, int64_t step);

  Transformer model_;
  Optimizer& optimizer_;
  StepSettings settings_;
  RankGroup& ranks_;
  std::unique_ptr<GradientReducer> reducer_;  // after the model, whose parameters it watches
  StepHooks hooks_;
  bool is_first_ = true;
};

}  // namespace dsmoe
