#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/model_config.h"
#include "model/moe/routing_plan.h"

namespace dsmoe {

enum class ScheduleKind { kCosine, kWsd, kConstant };
enum class DecayShape { kLinear, kOneMinusSqrt };
enum class MiScope { kLocal, kGlobal };
enum class DeviceKind { kCpu, kCuda, kAuto };
enum class ComputeDtype { kAuto, kFloat32, kBfloat16 };
enum class OnNonFinite { kStop, kSkip };
enum class OnSpike { kReport, kSkip };
enum class OnSaveFailure { kStop, kContinue };

/// The learning rate over the run; steps count optimizer steps.
struct ScheduleConfig {
  ScheduleKind kind = ScheduleKind::kCosine;
  double peak = 3e-4;          ///< learning rate after warm-up
  double final_ratio = 0.1;    ///< share of the peak reached one step after the last
  int64_t warmup_steps = 100;  ///< linear rise, from peak / warmup_steps; 0: none
  std::string warmup;       ///< instead of warmup_steps: `2%`, `200`, `10M tokens`; empty: not used
  int64_t decay_steps = 0;  ///< wsd: length of the final decay; 0: none
  DecayShape decay_shape = DecayShape::kLinear;  ///< wsd
  int64_t total_steps = 0;  ///< train.steps, set by TrainConfig::schedule_of_run
};

/// AdamW; arXiv:1711.05101.
struct OptimizerConfig {
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;  ///< of matrices only; 0: off
  double clip_norm = 1.0;     ///< bound of the global gradient norm; 0: off
};

/// Weights of the terms added to the language-model loss, each summed over layers but sparsity; 0
/// switches a term off. Mutual information and z are of softmax routers, sparsity of sigmoid ones.
struct LossConfig {
  double moe_mi_weight = 5e-4;
  double moa_mi_weight = 5e-4;
  MiScope mi_scope = MiScope::kLocal;  ///< local: one micro-batch; global: the accumulated batch
  double sparsity_weight = 1.0;        ///< mean open gate of partitioned experts, over layers too
  double switch_weight = 0.0;
  double z_weight = 0.0;
};

/// Guards of the weights against bad steps, and alarms.
struct GuardConfig {
  OnNonFinite on_non_finite = OnNonFinite::kStop;
  OnSpike on_spike = OnSpike::kSkip;
  double spike_z = 6.0;             ///< standard deviations above the window's mean; 0: off
  int64_t spike_window = 128;       ///< finite steps; no step is a spike before it is full
  int64_t max_skips = 10;           ///< skipped steps in a row that stop the run
  int64_t dead_expert_steps = 500;  ///< steps without load that raise an alarm; 0: off
  double collapse_entropy = 0.05;   ///< alarm below this share of log(n_experts); 0: off
};

/// Training and validation data; see open_training_data.
struct DataConfig {
  std::vector<std::string> train;  ///< directories of token shards, Megatron pairs
  std::vector<double> weights;     ///< shares of the training sequences; empty: equal
  std::string tokenizer;           ///< of Megatron pairs
  std::string validation;          ///< directory or text file; empty: no validation
  std::string field;  ///< key of the text where validation is a file of JSON lines; empty: "text"
  std::string separator = "<|endoftext|>";  ///< where validation is a file of plain text
  int64_t seq_len = 0;                      ///< tokens per sequence; 0: model.max_seq_len
  bool document_mask = false;               ///< no token attends across a document's start
  int64_t prefetch = 4;                     ///< micro-batches made ahead; 0: none
};

/// Elements of each rank per exchange of updated parameters or moments.
constexpr int64_t kExchangeBytes = int64_t{1} << 20;

/// What ranks share out instead of keeping it whole (arXiv:1910.02054); see ParameterShards.
enum class ShardLevel {
  kNone,
  kOptimizer,  ///< ZeRO-1: masters and moments; whole sums, reduced in the last micro-batch
  kGradients,  ///< ZeRO-2: gradients too, reduced in every micro-batch
};

/// Ranks of one job; without effect on one rank.
struct DistributedConfig {
  ShardLevel shard = ShardLevel::kNone;
  bool shard_optimizer = false;     ///< each rank keeps and applies its share of the moments
  double setup_timeout = 30;        ///< seconds for the rendezvous
  double step_timeout = 300;        ///< collective timeout in seconds
  int64_t bucket_mebibytes = 25;    ///< size of one gradient all-reduce
  bool compress_gradients = false;  ///< all-reduce in bfloat16
  bool debug = false;               ///< compare every collective before it begins
  int64_t check_every = 500;        ///< steps between comparisons of the ranks' weights; 0: none
};

struct TrainConfig {
  int64_t steps = 1000;         ///< optimizer steps of the whole run
  int64_t tokens = 0;           ///< instead of steps; 0: not used
  double epochs = 0;            ///< instead of steps: passes over the data; 0: not used
  int64_t batch_size = 16;      ///< sequences per micro-batch
  int64_t accumulation = 1;     ///< micro-batches per optimizer step, over all ranks
  int64_t batch_tokens = 0;     ///< instead of accumulation: tokens per step; 0: not used
  int64_t batch_sequences = 0;  ///< instead of accumulation: sequences per step; 0: not used
  ComputeDtype compute_dtype =
      ComputeDtype::kAuto;   ///< of matrix products; master weights are float32
  bool fast_float32 = true;  ///< float32 products by oneDNN; see use_fast_float32_products
  Recompute checkpoint_activations = Recompute::kNone;  ///< recomputed in the backward pass
  std::string init_from;                   ///< checkpoint of the initial weights; empty: random
  std::vector<std::string> init_override;  ///< keys that may differ from the checkpoint's
  int64_t log_every = 10;                  ///< steps
  int64_t validate_every = 250;            ///< steps, and at the end; 0: never
  /// The first one's loss is that of the run; empty: the training selection.
  std::vector<std::string> validate_policies;
  int64_t save_every = 500;      ///< steps, and at the end; 0: at the end only
  int64_t keep_checkpoints = 2;  ///< number of newest checkpoints kept
  int64_t keep_every = 0;        ///< multiples of it are never removed; 0: none
  bool keep_best = true;         ///< keep the one of the lowest validation loss
  OnSaveFailure on_save_failure = OnSaveFailure::kStop;
  int64_t trace_steps = 0;  ///< profiled after the first two of a process; 0: none
  ScheduleConfig schedule;
  OptimizerConfig optimizer;
  LossConfig loss;
  GuardConfig guard;

  ScheduleConfig schedule_of_run() const;
  /// True before resolve_units if a key stands instead of steps, accumulation or warmup_steps.
  bool has_units() const;
};

/// The config of one `dsmoe train`; a YAML file holds it.
struct RunConfig {
  std::string run_dir;  ///< directory for checkpoints and metrics
  int64_t seed = 0;     ///< of weights, data order and dropout
  int64_t threads = 0;  ///< 0: all cores
  DeviceKind device = DeviceKind::kCpu;
  ModelConfig model;
  DataConfig data;
  TrainConfig train;
  DistributedConfig distributed;

  int64_t seq_len() const;
  int64_t tokens_per_step() const { return train.batch_size * train.accumulation * seq_len(); }
  /// Throws Error naming the keys that contradict each other.
  void validate() const;
};

/// Replaces tokens, epochs, batch_tokens, batch_sequences and warmup by the steps, accumulation and
/// warmup_steps that they come to, and clears them: a resolved config holds steps alone.
///
/// data_tokens  of data.train together; empty: unknown
/// returns      a line for each, such as `train.steps = 1908: tokens = 1000000000, 524288 a step`
/// Throws Error for a text that is no warm-up, sequences that are no multiple of batch_size, and
/// epochs of unknown data.
std::vector<std::string> resolve_units(RunConfig& config, std::optional<int64_t> data_tokens);

/// model.training_policy for every layer. A policy that selects some experts computes only these,
/// so that a sparse-trained baseline has its real cost. A straight-through estimator needs all
/// experts.
RoutingPlan training_plan(const ModelConfig& config);

/// A policy that a run is validated under.
struct ValidationPolicy {
  std::string name;  ///< as the config writes it
  RoutingPlan plan;
};

/// train.validate_policies, or the training selection. Throws Error for a policy that cannot be
/// read or does not fit the model.
std::vector<ValidationPolicy> validation_policies(const RunConfig& config);

/// Names every key of a run, for reading, writing, documentation and comparison.
void describe(ConfigVisitor& visitor, RunConfig& config);

}  // namespace dsmoe
