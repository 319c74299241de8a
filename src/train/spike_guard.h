#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "train/train_config.h"

namespace dsmoe {

/// State of the guard between steps; part of the training state.
struct SpikeHistory {
  std::vector<double> losses;          ///< of the last finite steps, oldest first
  std::vector<double> gradient_norms;  ///< the same steps
  int64_t skipped_steps = 0;           ///< in the whole run
  int64_t skipped_in_a_row = 0;
};

/// Compares the loss and the gradient norm of each step with those of the steps before it.
class SpikeGuard {
 public:
  explicit SpikeGuard(const GuardConfig& config) : config_(config) {}

  /// Returns the reason if the step is a spike: a value more than spike_z standard deviations above
  /// the mean of its window. A NaN or Inf is a spike for every window. Changes nothing.
  std::optional<std::string> judge(double loss, double gradient_norm) const;

  /// Adds a step with an applied update to the windows.
  void accept(double loss, double gradient_norm);

  /// Counts a skipped step and adds it to the windows too if it is finite: a lasting change of
  /// level is a spike for some steps, not for ever.
  void skip(double loss, double gradient_norm);

  /// Throws RunError after max_skips skipped steps in a row.
  void check_skips() const;

  const SpikeHistory& history() const { return history_; }
  void restore(SpikeHistory history) { history_ = std::move(history); }

 private:
  void remember(double loss, double gradient_norm);

  GuardConfig config_;
  SpikeHistory history_;
};

}  // namespace dsmoe
