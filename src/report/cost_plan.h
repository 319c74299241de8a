#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "model/moe/routing_plan.h"
#include "model/parameter_count.h"
#include "model/planned_experts.h"
#include "report/gpu_specs.h"
#include "train/memory_plan.h"
#include "train/train_config.h"

namespace dsmoe {

/// Inputs of a plan; every number is printed with the plan.
struct PlanRequest {
  GpuSpec gpu;
  int64_t n_gpus = 1;  ///< GPUs that share the micro-batches of a step
  int64_t gpus_per_host = 8;
  double network_bytes_per_second = 50e9;  ///< of one GPU to other hosts, each way
  /// Share of the GPU's peak that model operations reach; empty: that of training_roofline.
  std::optional<double> mfu = {};
  double price_per_hour = 0;          ///< of one GPU, any currency; 0: unknown, no cost is given
  std::vector<RoutingPlan> policies;  ///< to infer with
};

/// Inference under one policy, per token.
struct PolicyCost {
  std::string policy;
  double active_parameters;  ///< embeddings left out
  double prefill_flops;      ///< mean over a full context
  double decode_flops;       ///< at the end of a full context
};

/// A sparsely trained model of equal quality, by the paper's measure: twice the FFN parameters in
/// 16 experts, 2 of them active. Source: arXiv:2404.05567, section 4.4 and Table 3.
struct SparseBaseline {
  int64_t parameters_total;
  double train_flops_per_token;
  double flops_ratio;   ///< dense training of this model over sparse training of the baseline
  double memory_ratio;  ///< weights, gradients and optimizer of this model over the baseline's
};

/// Memory of one rank under one value of train.checkpoint_activations.
struct RecomputePlan {
  std::string name;
  double peak = 0;  ///< bytes
  bool fits = false;
};

struct CostPlan {
  ParameterCount parameters;
  std::vector<PolicyCost> policies;
  double train_flops_per_token;  ///< under the training policy, recomputation not counted
  double mfu;                    ///< given, or of the roofline
  TrainingMemory memory;
  std::vector<RecomputePlan> recompute;  ///< none, selective, full
  double kv_cache_bytes;                 ///< bfloat16, one sequence of max_seq_len
  double tokens_per_step;                ///< of all ranks
  double compute_seconds;                ///< of a step
  double reduce_seconds;  ///< for averaging gradients, and with a sharded optimizer sharing weights
  double exposed_seconds;  ///< part of it that the last micro-batch's backward pass does not hide
  double step_seconds;     ///< compute and exposed
  double total_seconds;
  double total_tokens;
  double tokens_per_day;
  double gpu_hours;
  double cost;  ///< 0 without a price
  bool fits;    ///< memory.peak against the GPU's memory
  SparseBaseline sparse_baseline;
};

/// `all`, and top_k = 1, 2, 4, ... of the FFN experts with every attention expert.
std::vector<RoutingPlan> default_policies(const ModelConfig& config);

/// Computes a plan by arithmetic only: allocates nothing of the model's size. `config` is resolved.
/// Throws Error.
CostPlan plan_cost(const RunConfig& config, const PlanRequest& request);

}  // namespace dsmoe
