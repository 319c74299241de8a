#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/io.h"
#include "common/json_lines.h"
#include "eval/perplexity.h"
#include "train/expert_watch.h"
#include "train/losses.h"
#include "train/tensorboard.h"

namespace dsmoe {

/// The numbers of one optimizer step, and of the interval that ended with it.
struct StepMetrics {
  int64_t step = 0;    ///< steps done, from 1
  int64_t tokens = 0;  ///< consumed since the start of the run
  double loss = 0;     ///< total, nats
  std::vector<LossTerm> loss_terms;
  double learning_rate = 0;
  double gradient_norm = 0;  ///< before clipping
  double tokens_per_second = 0;
  double mfu = 0;  ///< share of the matrix speed measured at the start
  int64_t peak_memory_bytes = 0;
  /// Most that tensors held at once on the device in the interval; none on the CPU.
  std::optional<int64_t> device_memory_bytes;
  int64_t skipped_steps = 0;  ///< updates dropped since the start of the run
  RoutingStats routing;       ///< of the interval
};

/// `step 1200/5000 | tokens 9.8M | loss 3.412 (lm 3.405 moe_mi -0.61*0.0005) | lr ...`
std::string format_log_line(const StepMetrics& metrics, int64_t total_steps);

/// The numbers that `RUN/metrics.jsonl` holds of one step, without those by expert; none if it
/// holds no loss of that step. NaN where a number is null there, and for the weights of a line
/// without `loss_weights`. Throws Error if it cannot be read.
std::optional<StepMetrics> read_step_metrics(Io& io,
                                             const std::string& run_directory,
                                             int64_t step);

/// Where numbers of a run go: the log, `RUN/metrics.jsonl` and TensorBoard events.
class TrainMetrics {
 public:
  /// Lines of metrics.jsonl past first_step, of a run that was cut off, are dropped.
  TrainMetrics(Io& io, const std::string& run_directory, int64_t first_step, int64_t total_steps);

  void add(const StepMetrics& metrics);
  /// With the use of the FFN experts where there are some, and a warning for a layer that uses
  /// none.
  void add_validation(int64_t step, const PerplexityResult& result);
  /// A warning in the log and a line `{"step": ..., "event": ..., "text": ...}`.
  void add_event(int64_t step, const std::string& event, const std::string& text);

 private:
  int64_t total_steps_;
  std::unique_ptr<JsonLines> lines_;
  TensorboardWriter tensorboard_;
};

}  // namespace dsmoe
