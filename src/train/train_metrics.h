#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/io.h"
#include "common/json_lines.h"
#include "eval/perplexity.h"
#include "train/log_table.h"
#include "train/step_metrics.h"
#include "train/tensorboard.h"

namespace dsmoe {

/// The numbers that `RUN/metrics.jsonl` holds of one step, without those by expert; none if it
/// holds no loss of that step. NaN where a number is null there, and for the weights of a line
/// without `loss_weights`. Throws Error if it cannot be read.
std::optional<StepMetrics> read_step_metrics(Io& io,
                                             const std::string& run_directory,
                                             int64_t step);

/// The scores of the last validation in `RUN/metrics.jsonl`, at most at `step`, in the order of the
/// policies; empty if there is none, or if it names no policy. Throws Error if it cannot be read.
std::vector<ValidationScore> read_validation_scores(Io& io,
                                                    const std::string& run_directory,
                                                    int64_t step);

/// A validation under one policy, with the use of experts that it measured.
struct PolicyValidation {
  ValidationScore score;
  PerplexityResult result;
};

/// Where numbers of a run go: the log, `RUN/metrics.jsonl` and TensorBoard events. The latter are
/// the runs `train` and `validation/POLICY` of `RUN/tensorboard`, with equal names for equal
/// numbers.
class TrainMetrics {
 public:
  /// Lines of metrics.jsonl past first_step, of a run that was cut off, are dropped.
  ///
  /// policies  that are validated, as in ValidationScore
  /// clock     for the times of lines and events
  TrainMetrics(Io& io,
               const std::string& run_directory,
               int64_t first_step,
               int64_t total_steps,
               const std::vector<std::string>& policies = {},
               WallClock clock = system_seconds);

  /// The config of the run, as text for TensorBoard.
  void add_config(const std::string& yaml);
  void add(const StepMetrics& metrics);
  /// One entry per policy, in their order. With the use of the FFN experts where there are some,
  /// and a warning for a layer that uses none.
  void add_validation(int64_t step, const std::vector<PolicyValidation>& validations);
  /// A warning in the log, a line `{"step": ..., "event": ..., "text": ...}`, and a text.
  void add_event(int64_t step, const std::string& event, const std::string& text);
  /// A stop, for TensorBoard alone: the lines of a run do not depend on its stops.
  void add_stop(int64_t step, const std::string& why);

  /// Wall seconds of the run, of all its starts, to its last line.
  double seconds() const { return seconds_; }

 private:
  void add_line(nlohmann::ordered_json json);

  int64_t first_step_;
  int64_t total_steps_;
  WallClock clock_;
  double started_at_;  // less the seconds of earlier starts
  double seconds_ = 0;
  std::optional<LogTable> table_;
  int64_t rows_ = 0;
  std::unique_ptr<JsonLines> lines_;
  TensorboardWriter tensorboard_;
  std::vector<std::unique_ptr<TensorboardWriter>> validation_tensorboards_;
};

}  // namespace dsmoe
