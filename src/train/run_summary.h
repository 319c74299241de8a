#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "data/training_data.h"
#include "model/parameter_count.h"
#include "train/memory_plan.h"
#include "train/train_config.h"

namespace dsmoe {

/// Where a run executes: its ranks, the memory and disk of this rank's host, and its GPU.
struct RunPlace {
  int64_t world_size = 1;
  int64_t ranks_of_host = 1;
  int64_t memory_bytes = 0;            ///< of the host; 0: unknown
  int64_t available_memory_bytes = 0;  ///< of it, free now; 0: unknown
  int64_t free_disk_bytes = 0;         ///< where run_dir is; 0: unknown
  int64_t device_memory_bytes = 0;     ///< of the selected GPU; 0: no GPU is open
};

/// Measures memory and disk of this host, and the memory of the GPU that is open.
RunPlace this_place(const std::string& run_dir, int64_t world_size = 1, int64_t ranks_of_host = 1);

/// Where a run begins.
struct StartPoint {
  std::string resumed_from;     ///< checkpoint of the run; empty: a new run
  int64_t step = 0;             ///< steps that it has
  int64_t own_checkpoints = 0;  ///< checkpoints that run_dir holds
};

/// Parameters that a policy uses per token.
struct PolicyParameters {
  std::string policy;
  std::optional<double> active;  ///< embeddings left out; empty: depends on the data
};

/// One entry of data.train.
struct CorpusUse {
  std::string path;
  int64_t tokens = 0;
  int64_t documents = 0;
  double epochs = 0;  ///< passes over it in the whole run
};

/// Everything that is known of a run before its first step. The header of a run and `train
/// --dry-run` print it.
struct RunSummary {
  std::string run_dir;
  std::string init_from;  ///< empty: random weights
  StartPoint start;

  ParameterCount parameters;
  std::vector<PolicyParameters> policies;  ///< `all`, the training policy, and those asked for

  std::vector<CorpusUse> corpora;
  int64_t data_tokens = 0;  ///< of all corpora
  double epochs = 0;        ///< total_tokens / data_tokens
  std::string validation;   ///< path; empty: none

  int64_t context = 0;  ///< tokens of a training sequence
  int64_t batch_size = 0;
  int64_t accumulation = 0;
  int64_t tokens_per_step = 0;
  int64_t steps = 0;
  int64_t warmup_steps = 0;
  int64_t total_tokens = 0;  ///< of all steps

  std::string device;  ///< cpu or cuda
  std::string dtype;   ///< of matrix products
  std::string isa;     ///< of the kernels on the CPU
  int64_t ranks = 1;
  int64_t threads = 0;  ///< of each rank

  TrainingMemory memory;  ///< of one rank
  /// On the CPU the ranks of this host with their copies for saving; on a GPU these copies alone.
  double host_memory_bytes = 0;
  double device_memory_bytes = 0;  ///< of one rank on its GPU; 0 on the CPU
  RunPlace place;

  double checkpoint_bytes = 0;       ///< of one checkpoint
  int64_t kept_checkpoints = 0;      ///< most at one time, the one being written among them
  double checkpoint_disk_bytes = 0;  ///< that the checkpoints still to come may take

  bool fits_memory() const;  ///< host_memory_bytes within the host's memory; true if unknown
  bool fits_device() const;  ///< device_memory_bytes within the GPU's; true if unknown
  bool fits_disk() const;    ///< checkpoint_disk_bytes within the free disk; true if unknown
};

/// Collects the summary of a resolved config (see resolve_run_config); reads no weight.
///
/// data      the data of the config, opened
/// policies  further policies, as on the command line, for RunSummary::policies
/// Throws Error for a policy that does not fit the model, and if train.accumulation is no multiple
/// of the ranks.
RunSummary summarise_run(const RunConfig& config,
                         const TrainingData& data,
                         const RunPlace& place,
                         const StartPoint& start,
                         const std::vector<std::string>& policies = {});

}  // namespace dsmoe
