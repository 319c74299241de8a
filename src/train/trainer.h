#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/io.h"
#include "common/run_lock.h"
#include "data/data_loader.h"
#include "data/training_data.h"
#include "eval/eval_text.h"
#include "model/io/checkpoint_reader.h"
#include "model/transformer.h"
#include "train/checkpoint_saver.h"
#include "train/checkpoint_store.h"
#include "train/expert_watch.h"
#include "train/init_source.h"
#include "train/optimizer.h"
#include "train/spike_guard.h"
#include "train/step_trace.h"
#include "train/train_config.h"
#include "train/train_hooks.h"
#include "train/train_metrics.h"
#include "train/train_state.h"
#include "train/train_step.h"

namespace dsmoe {

/// What a run came to.
struct TrainResult {
  int64_t step = 0;    ///< steps done
  int64_t tokens = 0;  ///< consumed in them
  /// Of step `step`, of this process or where it took no step of the one before (metrics.jsonl, of
  /// rank 0 alone); none if no numbers of that step were kept.
  std::optional<StepMetrics> last;
  std::optional<double>
      validation_loss;     ///< of the last validation of the run; none: there was none
  bool stopped = false;    ///< by a signal, with the state saved
  std::string checkpoint;  ///< newest one; empty if none was written or found
};

/// Trains one model in one process, or as one of several ranks: these share every step's
/// micro-batches, rank 0 alone reads and writes the run directory.
class Trainer {
 public:
  /// Opens data, model and optimizer of a resolved config (see resolve_run_config) and takes up the
  /// run where its checkpoint left it.
  ///
  /// resume  `auto`: the newest valid checkpoint of run_dir, if there is one; `none`: from the
  ///         start, refused where run_dir has checkpoints; a path: that checkpoint and no other
  /// Throws Error for anything that does not fit: data, tokenizer, a config key that a resume must
  /// not change, another process in run_dir.
  Trainer(Io& io,
          const RunConfig& config,
          const std::string& resume,
          TrainHooks hooks = {},
          std::shared_ptr<RankGroup> ranks = std::make_shared<RankGroup>());

  /// Trains to train.steps, or until a stop signal. A run that has its steps already is left as it
  /// is; the log says so and the result holds its last numbers. Throws RunError for a non-finite
  /// loss or gradient, before the weights are touched, and for a checkpoint that could not be
  /// saved, at the step after it failed; train.guard and train.on_save_failure say otherwise.
  TrainResult run();

 private:
  StepResult train_step();
  std::vector<Batch> next_batches();
  StepHooks step_hooks();
  bool passes_guards(const StepResult& result, const std::vector<Batch>& batches);
  void report_bad_step(const StepResult& result,
                       const std::vector<Batch>& batches,
                       const std::string& reason);
  StepMetrics measure(const StepResult& result, double seconds, int64_t steps);
  bool is_validation_due() const;
  bool is_check_due() const;
  bool is_stopping() const;
  void note(int64_t step, const std::string& event, const std::string& text);
  void validate(TrainResult& result);
  void add_last_numbers(TrainResult& result);
  void save();
  void start(const std::string& resume);
  int64_t n_micro_batches() const;
  void check_ranks();
  void share_state();
  void seed_dropout();
  void refuse_later_steps(const VerifiedCheckpoint& checkpoint, const std::string& resume);
  void restore(const VerifiedCheckpoint& checkpoint);

  Io& io_;
  std::shared_ptr<RankGroup> ranks_;
  RunConfig config_;
  std::shared_ptr<const TrainingData> dataset_;
  EvalText validation_;
  DataLoader loader_;
  std::optional<RunLock> lock_;  // of rank 0; after the data: what does not fit leaves no run
                                 // directory behind
  Transformer model_;
  StepSettings settings_;
  Optimizer optimizer_;
  TrainStep step_;
  CheckpointStore store_;
  CheckpointSaver saver_;
  SpikeGuard guard_;
  ExpertWatch watch_;
  StepTrace trace_;
  TrainHooks hooks_;
  TrainState state_;
  std::unique_ptr<TrainMetrics> metrics_;  // of rank 0
  std::string resumed_from_;
  NamedTensors restored_optimizer_;  // of rank 0, until it is shared
  bool is_stopping_ = false;
  int64_t saved_step_ = -1;  // last one that was saved or whose save has begun
  double flops_per_token_ = 0;
  double peak_flops_ = 0;
};

/// Fills in what the config leaves to the machine and the data: vocab_size, seq_len, threads,
/// compute_dtype. The result is what is printed and stored. Throws Error.
///
/// source  the checkpoint that the run begins with: its tokenizer is compared
RunConfig resolve_run_config(RunConfig config,
                             const std::optional<InitSource>& source = std::nullopt);

}  // namespace dsmoe
