#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/batch.h"
#include "data/data_loader.h"
#include "train/spike_guard.h"
#include "train/train_context.h"
#include "train/train_step.h"

namespace dsmoe {

/// The decision on one step.
struct StepVerdict {
  bool is_applied = true;  ///< false: its update is dropped
  std::string event;       ///< `spike` or `skipped` for the log; empty: nothing to log
  std::string reason;      ///< of the event
};

/// Keeps the update of a bad step away from the weights: one with a non-finite loss or gradient, or
/// with a spike in either.
class BadStepGuard {
 public:
  /// loader  of the run: maps positions to sequences; outlives this
  BadStepGuard(const TrainContext& context, const DataLoader& loader);

  /// Judges a step, counted from 1, by its loss and gradient norm, before its update. Reports a bad
  /// one in `RUN/bad_steps`: the reason and this rank's sequences. Throws RunError for a non-finite
  /// step, unless train.guard.on_non_finite is skip; the text names where the first NaN or Inf is.
  StepVerdict judge(int64_t step, const StepResult& result, const std::vector<Batch>& batches);

  /// Throws RunError after train.guard.max_skips dropped updates in a row.
  void check_skips() const { spikes_.check_skips(); }

  const SpikeHistory& history() const { return spikes_.history(); }
  void restore(SpikeHistory history) { spikes_.restore(std::move(history)); }

 private:
  std::string describe_non_finite(const StepResult& result, const std::vector<Batch>& batches);
  void report(int64_t step,
              const StepResult& result,
              const std::vector<Batch>& batches,
              const std::string& reason) const;

  TrainContext context_;
  const DataLoader& loader_;
  StepSettings settings_;
  SpikeGuard spikes_;
};

}  // namespace dsmoe
