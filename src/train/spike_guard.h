#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace dsmoe {

enum class OnNonFinite { kStop, kSkip };
enum class OnSpike { kReport, kSkip };

/// What protects weights from a bad step and a run from going on unnoticed.
struct GuardConfig {
  OnNonFinite on_non_finite = OnNonFinite::kStop;
  OnSpike on_spike = OnSpike::kSkip;
  double spike_z = 6.0;             ///< standard deviations above the window's mean; 0: off
  int64_t spike_window = 128;       ///< finite steps; no step is a spike before it is full
  int64_t max_skips = 10;           ///< skipped steps in a row that stop the run
  int64_t dead_expert_steps = 500;  ///< steps without load that raise an alarm; 0: off
  double collapse_entropy = 0.05;   ///< alarm below this share of log(n_experts); 0: off
};

/// What the guard remembers between steps; part of the training state.
struct SpikeHistory {
  std::vector<double> losses;          ///< of the last finite steps, oldest first
  std::vector<double> gradient_norms;  ///< the same steps
  int64_t skipped_steps = 0;           ///< in the whole run
  int64_t skipped_in_a_row = 0;
};

/// Judges the loss and the gradient norm of each step against those of the steps before it.
class SpikeGuard {
 public:
  explicit SpikeGuard(const GuardConfig& config) : config_(config) {}

  /// Why the step is a spike, if it is one: a value more than spike_z standard deviations above the
  /// mean of its window. A NaN or Inf is one whatever the window holds. Changes nothing.
  std::optional<std::string> judge(double loss, double gradient_norm) const;

  /// Adds a step whose update was applied to the windows.
  void accept(double loss, double gradient_norm);

  /// Counts a skipped step and adds it to the windows too if it is finite: a lasting change of
  /// level is a spike for some steps, not for ever. Throws RunError if that makes max_skips in a
  /// row.
  void skip(double loss, double gradient_norm);

  const SpikeHistory& history() const { return history_; }
  void restore(SpikeHistory history) { history_ = std::move(history); }

 private:
  void remember(double loss, double gradient_norm);

  GuardConfig config_;
  SpikeHistory history_;
};

}  // namespace dsmoe
