#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "common/run_lock.h"
#include "model/io/checkpoint_reader.h"
#include "train/checkpoint_saver.h"
#include "train/checkpoint_store.h"
#include "train/optimizer.h"
#include "train/run_summary.h"
#include "train/train_context.h"
#include "train/train_state.h"

namespace dsmoe {

/// Finds where RunCheckpoints::start would begin and makes its checks of run_dir, config, data and
/// program, without a look at weights; of several checkpoints it takes the newest with a readable
/// manifest. Changes nothing. Throws Error as start does.
StartPoint find_start(Io& io,
                      const RunConfig& config,
                      const TrainingData& dataset,
                      const std::string& resume);

/// Starts a run, or resumes it, and saves it: weights, optimizer state, random state and numbers.
/// Only rank 0 reads and writes the run directory.
class RunCheckpoints {
 public:
  /// optimizer  of the model's parameters; outlives this
  RunCheckpoints(const TrainContext& context, Optimizer& optimizer);

  /// Locks the run directory until this ends, fills model, optimizer and random state, and writes
  /// `RUN/config.yaml`. Returns the run's numbers, the same on every rank; the other ranks' weights
  /// are left as they are.
  ///
  /// resume  `auto`: the newest valid checkpoint of run_dir, if there is one; `none`: from the
  ///         start, refused where run_dir has checkpoints; a path: that checkpoint and no other
  /// Throws Error for a mismatch: tokens, tokenizer, a config key that a resume must not
  /// change, files of something else in run_dir, another process in it.
  TrainState start(const std::string& resume);

  /// The checkpoint that start() resumed from, on rank 0; empty if the run is new.
  const std::string& resumed_from() const { return resumed_from_; }

  /// Begins to save the run at `state.step`, unless that step is saved; a better validation loss
  /// makes it the best step. To be called on every rank. Throws RunError as check() does.
  void save(TrainState& state);

  /// Throws RunError if a save failed since the last call and train.on_save_failure is stop.
  void check() { saver_.check(); }

  /// Waits for the save in flight. Returns the newest checkpoint, saved or resumed from; empty if
  /// there is none. Throws RunError if that save failed.
  std::string finish();

 private:
  TrainState start_on_first_rank(const std::string& resume);
  TrainState start_new();
  TrainState resume_from(const VerifiedCheckpoint& checkpoint);
  NamedTensors weights_to_fill();
  TrainState share(const TrainState& state);

  TrainContext context_;
  Optimizer& optimizer_;
  std::optional<RunLock> lock_;
  CheckpointStore store_;
  CheckpointSaver saver_;
  std::string resumed_from_;
  NamedTensors restored_optimizer_;  // of rank 0, until it is shared
  NamedTensors restored_model_;      // likewise, where the ranks keep shards
  int64_t saved_step_ = -1;          // of the last save that has begun
};

}  // namespace dsmoe
