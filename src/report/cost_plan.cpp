#include "report/cost_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/error.h"
#include "model/flops.h"
#include "report/gpu_roofline.h"

namespace dsmoe {
namespace {

constexpr double kForwardAndBackward = 3.0;  // in forward passes
constexpr int64_t kSparseExperts = 16;
constexpr int64_t kSparseWidth = 2;  // FFN parameters of the baseline per those of this model

PolicyCost policy_cost(const ModelConfig& config, const RoutingPlan& plan) {
  const auto active = planned_experts(config, plan);
  const auto context = static_cast<double>(config.max_seq_len);
  return {.policy = plan.to_string(),
          .active_parameters = active_parameters(config, active),
          .prefill_flops = forward_flops_per_token(config, active, context / 2.0),
          .decode_flops = forward_flops_per_token(config, active, context)};
}

double training_flops(const ModelConfig& config, int64_t seq_len) {
  // Gates are trained with all experts computed, however many are open.
  const auto active =
      config.ffn.kind == FfnKind::kPartitioned && config.ffn.partition.straight_through
          ? all_experts(config)
          : planned_experts(config, parse_routing_plan(config.training_policy));
  return kForwardAndBackward *
         forward_flops_per_token(config, active, static_cast<double>(seq_len) / 2.0);
}

// Returns the forward passes that one step computes per token, in those of a model that keeps all
// activations: recomputation adds to forward and backward.
double computed_passes(const RunConfig& config, double flops_per_token) {
  const auto& model = config.model;
  switch (config.train.checkpoint_activations) {
    case Recompute::kNone:
      return kForwardAndBackward;
    case Recompute::kBlock:
      return kForwardAndBackward + 1.0;
    case Recompute::kAttention:
      break;
  }
  ModelConfig attention_only = model;
  attention_only.ffn.kind = FfnKind::kDense;
  attention_only.ffn.d_ffn = 0;
  const double head = 2.0 * static_cast<double>(model.vocab_size * model.d_model);
  const double attention = forward_flops_per_token(attention_only,
                                                   all_experts(attention_only),
                                                   static_cast<double>(config.seq_len()) / 2.0) -
                           head;
  return kForwardAndBackward + attention / (flops_per_token / kForwardAndBackward);
}

SparseBaseline sparse_baseline(const RunConfig& config, double flops_per_token) {
  ModelConfig sparse = config.model;
  auto& ffn = sparse.ffn;
  const int64_t width = ffn.kind == FfnKind::kMoe ? ffn.n_experts * ffn.d_expert : ffn.d_ffn;
  ffn.kind = FfnKind::kMoe;
  ffn.n_experts = kSparseExperts;
  ffn.d_expert = kSparseWidth * width / kSparseExperts;
  sparse.training_policy = "top_k=2";
  const double sparse_flops = training_flops(sparse, config.seq_len());
  const auto total = count_parameters(sparse).total();
  return {.parameters_total = total,
          .train_flops_per_token = sparse_flops,
          .flops_ratio = flops_per_token / sparse_flops,
          .memory_ratio = static_cast<double>(count_parameters(config.model).total()) /
                          static_cast<double>(total)};
}

}  // namespace

std::vector<RoutingPlan> default_policies(const ModelConfig& config) {
  std::vector<RoutingPlan> policies{RoutingPolicy::all()};
  if (config.ffn.kind != FfnKind::kMoe) return policies;
  for (int64_t k = 1; k < config.ffn.n_experts; k *= 2) {
    policies.emplace_back(
        LayerRouting{.moa = RoutingPolicy::all(), .moe = RoutingPolicy::top_k(k)});
  }
  return policies;
}

namespace {

// A ring moves 2 (n - 1) / n of the bytes through the slowest link for an all-reduce, half of it
// for an all-gather.
double ring_seconds(double bytes, double passes, const PlanRequest& request) {
  const auto n = static_cast<double>(request.n_gpus);
  const double link =
      request.n_gpus > request.gpus_per_host
          ? std::min(request.gpu.link_bytes_per_second, request.network_bytes_per_second)
          : request.gpu.link_bytes_per_second;
  return passes * (n - 1) / n * bytes / link;
}

void add_communication(CostPlan& plan, const RunConfig& config, const PlanRequest& request) {
  const double gradients = plan.memory.gradients;
  const double reduce =
      ring_seconds(config.distributed.compress_gradients ? gradients / 2 : gradients, 2, request);
  // Only the backward pass of a rank's last micro-batch overlaps with it.
  const double micro_batches = std::max(
      1.0, static_cast<double>(config.train.accumulation) / static_cast<double>(request.n_gpus));
  const double backward =
      plan.compute_seconds * (kForwardAndBackward - 1.0) / kForwardAndBackward / micro_batches;
  const double shared = config.distributed.shard_optimizer && request.n_gpus > 1
                            ? ring_seconds(plan.memory.weights, 1, request)
                            : 0.0;
  plan.reduce_seconds = reduce + shared;
  plan.exposed_seconds = std::max(0.0, reduce - backward) + shared;
  plan.step_seconds = plan.compute_seconds + plan.exposed_seconds;
}

// Share of the peak that the step of one micro-batch reaches, by its kernels.
double roofline_mfu(const RunConfig& config, const GpuSpec& gpu) {
  const int64_t n_tokens = config.train.batch_size * config.seq_len();
  const auto step = training_roofline(config.model, gpu, n_tokens, config.seq_len());
  return step.flops() / step.seconds() / gpu.flops;
}

std::vector<RecomputePlan> recompute_plans(const RunConfig& config, const PlanRequest& request) {
  std::vector<RecomputePlan> plans;
  const auto add = [&](const char* name, Recompute recompute) {
    RunConfig other = config;
    other.train.checkpoint_activations = recompute;
    const double peak = training_memory(other, request.n_gpus).peak;
    plans.push_back({name, peak, peak <= request.gpu.memory_bytes});
  };
  add("none", Recompute::kNone);
  add("selective", Recompute::kAttention);
  add("full", Recompute::kBlock);
  return plans;
}

}  // namespace

CostPlan plan_cost(const RunConfig& config, const PlanRequest& request) {
  CostPlan plan;
  plan.parameters = count_parameters(config.model);
  for (const auto& policy : request.policies) {
    plan.policies.push_back(policy_cost(config.model, policy));
  }
  plan.train_flops_per_token = training_flops(config.model, config.seq_len());
  plan.memory = training_memory(config, request.n_gpus);
  plan.kv_cache_bytes =
      kv_cache_bytes_per_token(config.model, 2.0) * static_cast<double>(config.model.max_seq_len);
  const auto& train = config.train;
  plan.tokens_per_step =
      static_cast<double>(train.batch_size * train.accumulation * config.seq_len());
  const double computed = computed_passes(config, plan.train_flops_per_token) / kForwardAndBackward;
  plan.mfu = request.mfu ? *request.mfu : roofline_mfu(config, request.gpu);
  plan.recompute = recompute_plans(config, request);
  const double speed = plan.mfu * request.gpu.flops * static_cast<double>(request.n_gpus);
  plan.compute_seconds = plan.tokens_per_step * plan.train_flops_per_token * computed / speed;
  add_communication(plan, config, request);
  plan.total_seconds = plan.step_seconds * static_cast<double>(train.steps);
  plan.total_tokens = plan.tokens_per_step * static_cast<double>(train.steps);
  plan.tokens_per_day = 86400.0 * plan.tokens_per_step / plan.step_seconds;
  plan.gpu_hours = plan.total_seconds / 3600.0 * static_cast<double>(request.n_gpus);
  plan.cost = plan.gpu_hours * request.price_per_hour;
  plan.fits = plan.memory.peak <= request.gpu.memory_bytes;
  plan.sparse_baseline = sparse_baseline(config, plan.train_flops_per_token);
  return plan;
}

}  // namespace dsmoe
