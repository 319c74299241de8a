#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "model/transformer.h"
#include "train/optimizer.h"
#include "train/step_timer.h"
#include "train/train_config.h"
#include "train/train_step.h"

namespace dsmoe {

/// Prepares a config for measuring: no data is read, so the config must set the vocabulary. Throws
/// Error naming an invalid key.
RunConfig resolve_bench_config(RunConfig config);

/// `[batch_size, seq_len + 1]` tokens of micro-batch `index`: the top bits of the SplitMix64 mixer,
/// modulo the vocabulary, so that another program can make the same ones.
at::Tensor bench_tokens(const RunConfig& config, int64_t index);

/// The training step of one config on random tokens, from the weights that training would start
/// from, on the config's device. Several ranks share its micro-batches.
class TrainBench {
 public:
  /// `ranks` outlive this. Throws Error if they cannot share train.accumulation.
  TrainBench(const RunConfig& config, RankGroup& ranks);
  TrainBench(const TrainBench&) = delete;
  TrainBench& operator=(const TrainBench&) = delete;

  /// One optimizer step; its times by part.
  StepTimes step();

  const Transformer& model() const { return model_; }
  at::Device device() const { return model_->device(); }
  at::ScalarType compute_dtype() const { return settings_.forward.compute_dtype; }
  int64_t tokens_per_step() const;  ///< of all ranks
  double last_loss() const { return last_loss_; }

 private:
  std::vector<Batch> next_batches();

  RunConfig config_;
  Transformer model_;
  StepSettings settings_;
  std::unique_ptr<ParameterShards> shards_;  // null: every rank keeps whole parameters
  Optimizer optimizer_;
  RankGroup& ranks_;
  TrainStep step_;
  int64_t steps_ = 0;
  double last_loss_ = 0;
};

struct TrainBenchOptions {
  int64_t warmup = 3;        ///< uncounted steps of every config
  int64_t repetitions = 10;  ///< counted steps of every config
};

/// Measurements of one config.
struct TrainBenchResult {
  std::vector<StepTimes> steps;  ///< counted ones, in order
  std::vector<double> losses;    ///< of all steps, warm-up first
  int64_t parameters = 0;
  int64_t n_ranks = 1;
  int64_t tokens_per_step = 0;  ///< of all ranks
  double flops_per_token = 0;
  double peak_flops = 0;          ///< GEMM peak measured before, between and after the rounds
  int64_t peak_memory_bytes = 0;  ///< of the device; 0 on the CPU, see measure_step_memory
  /// True if the time of each part of a step is measured. On a device, which runs asynchronously,
  /// only the total is.
  bool has_parts = true;

  double median_of(const std::function<double(const StepTimes&)>& value) const;
  double mfu() const;
};

/// Measures one step of every config per round, so that a change of the machine affects all of them
/// equally. Memory is not measured here.
std::vector<TrainBenchResult> run_train_bench(const std::vector<RunConfig>& configs,
                                              const TrainBenchOptions& options,
                                              RankGroup& ranks);

/// Median over the rounds of `result`'s value over `first`'s in the same round.
double paired_ratio(const TrainBenchResult& result,
                    const TrainBenchResult& first,
                    const std::function<double(const StepTimes&)>& value);

double median(std::vector<double> values);

/// Peaks of one rank's bytes in its set-up and three steps, each above what there was before. The
/// second step is the first with compute copies of updated weights, the third repeats it.
struct StepMemory {
  int64_t resident = 0;  ///< of the process: the machine's libraries, kernels and heap as well
  int64_t held = 0;     ///< of CPU tensors and of the blocks that freed ones left for later tensors
  int64_t tensors = 0;  ///< of CPU tensors
};

/// Measures it here, on the CPU, and needs caching_allocator::install(). `resident`
/// holds only if this process never held more before.
StepMemory measure_step_memory(const RunConfig& config, RankGroup& ranks);

/// Measures one rank in a child process. Call before this process computes
/// anything: the child inherits its threads' pools only as long as there are none. Throws RunError.
StepMemory measure_step_memory_apart(const RunConfig& config);

}  // namespace dsmoe
