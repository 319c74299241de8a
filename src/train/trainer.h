#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/io.h"
#include "data/data_loader.h"
#include "data/training_data.h"
#include "eval/eval_text.h"
#include "model/transformer.h"
#include "train/bad_step_guard.h"
#include "train/expert_watch.h"
#include "train/init_source.h"
#include "train/matrix_peak.h"
#include "train/optimizer.h"
#include "train/run_checkpoints.h"
#include "train/run_summary.h"
#include "train/step_trace.h"
#include "train/train_config.h"
#include "train/train_metrics.h"
#include "train/train_state.h"
#include "train/train_step.h"

namespace dsmoe {

/// What a run takes from its machine.
struct TrainMachine {
  WallClock clock = system_seconds;
  std::shared_ptr<MatrixPeak> peak;  ///< of one rank, for MFU; null: MFU is not reported
};

/// Results of a run.
struct TrainResult {
  int64_t step = 0;    ///< steps done
  int64_t tokens = 0;  ///< consumed in them
  /// Numbers of step `step`; read from metrics.jsonl (rank 0 only) if this process took no step;
  /// none if that step has no numbers.
  std::optional<StepMetrics> last;
  std::optional<double>
      validation_loss;  ///< of the last validation of the run; none: there was none
  /// Of the same validation, under every policy (rank 0 only); empty if metrics.jsonl lacks them.
  std::vector<ValidationScore> validations;
  int64_t best_step = 0;   ///< saved step of the lowest validation loss; 0: none
  double best_loss = 0;    ///< of that step
  double seconds = 0;      ///< wall time of the run, of all its starts (rank 0 only)
  bool stopped = false;    ///< before the last step, with the state saved
  std::string checkpoint;  ///< newest one; empty if none was written or found
};

/// Trains one model in one process, or as one of several ranks: these share every step's
/// micro-batches, only rank 0 reads and writes the run directory.
class Trainer {
 public:
  /// Opens data, model and optimizer of a resolved config (see resolve_run_config) and starts or
  /// resumes the run.
  ///
  /// resume  see RunCheckpoints::start
  /// device  of the model, opened before, of the kind of config.device
  /// Throws Error for anything that does not fit: data, tokenizer, a config key that a resume must
  /// not change, another process in run_dir.
  Trainer(Io& io,
          const RunConfig& config,
          const std::string& resume,
          at::Device device = at::kCPU,
          std::shared_ptr<RankGroup> ranks = std::make_shared<RankGroup>(),
          TrainMachine machine = {});

  /// Trains to train.steps, or until a stop signal; first makes up for a validation that a stop cut
  /// short. A finished run stays as it is: a log line names its last loss, and the result holds its
  /// last numbers. Throws what step() and finish() throw.
  TrainResult run();

  /// Trains one step, then validates and saves where that is due. Returns false, without a step,
  /// once the run has train.steps or a stop signal came. Throws RunError for a non-finite loss or
  /// gradient, before the weights are touched, and for a checkpoint that could not be saved, at the
  /// step after it failed; train.guard and train.on_save_failure can change both.
  bool step();

  /// Saves a run that has not all its steps, and waits for the save. Throws RunError if it failed.
  TrainResult finish();

  /// Everything that is known of the run before its next step; of its start on rank 0 only.
  RunSummary summary() const;

  const Transformer& model() const { return model_; }

 private:
  using Clock = std::chrono::steady_clock;
  // Since the last log line.
  struct LogInterval {
    int64_t first_step = 0;
    Clock::time_point start = Clock::now();
    double pause_seconds = 0;  // validation and saving
  };

  void check_ranks();
  void train_step();
  void seed_dropout();
  std::vector<Batch> load_batches();
  bool passes_guard(const StepResult& result, const std::vector<Batch>& batches);
  void count_step();
  void report(const StepResult& result);
  StepMetrics measure(const StepResult& result);
  bool is_logged(int64_t step) const;
  bool is_validation_due() const;
  bool is_check_due() const;
  bool is_stopping() const;
  void note(int64_t step, const std::string& event, const std::string& text);
  void validate();
  std::optional<PolicyValidation> validate_under(const ValidationPolicy& policy);
  double flops_per_token(const RoutingStats& routing) const;
  void save();
  int64_t tokens_per_step() const;

  Io& io_;
  std::shared_ptr<RankGroup> ranks_;
  RunConfig config_;
  std::shared_ptr<const TrainingData> dataset_;
  EvalText validation_;
  DataLoader loader_;
  Transformer model_;
  StepSettings settings_;
  std::unique_ptr<ParameterShards> shards_;  // null: every rank keeps whole parameters
  Optimizer optimizer_;
  TrainStep step_;
  RunCheckpoints checkpoints_;  // after the data: bad data leaves no run directory
  BadStepGuard bad_steps_;
  ExpertWatch watch_;
  StepTrace trace_;
  TrainState state_;
  TrainResult result_;
  LogInterval interval_;
  std::unique_ptr<TrainMetrics> metrics_;  // of rank 0
  TrainMachine machine_;
  std::vector<ValidationPolicy> policies_;
  bool is_stopping_ = false;
};

/// A config whose every key has its value, and the data that it names.
struct ResolvedRun {
  RunConfig config;
  std::shared_ptr<const TrainingData> data;
  std::vector<std::string> notes;  ///< what tokens, epochs and the like come to; see resolve_units
};

/// Fills in the keys that depend on the machine and the data: steps, vocab_size, seq_len, threads,
/// compute_dtype. The result is printed and stored. Throws Error.
///
/// source  the checkpoint that the run begins with: its tokenizer is compared
ResolvedRun resolve_run(RunConfig config, const std::optional<InitSource>& source = std::nullopt);

/// Checks all that a start of the run checks but weights, device and other ranks: run_dir, the
/// checkpoint that it resumes from, training and validation data, ranks. Writes nothing. Returns
/// the summary; memory and disk are in it, not refused. Throws Error.
RunSummary preview_run(Io& io,
                       const ResolvedRun& run,
                       const std::string& resume,
                       int64_t world_size = 1,
                       int64_t ranks_of_host = 1);

/// The config of resolve_run alone.
RunConfig resolve_run_config(RunConfig config,
                             const std::optional<InitSource>& source = std::nullopt);

}  // namespace dsmoe
