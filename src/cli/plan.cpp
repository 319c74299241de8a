#include <fmt/format.h>

#include <filesystem>
#include <optional>

#include "cli/command_support.h"
#include "cli/options/plan.h"
#include "cli/roofline_tables.h"
#include "cli/run_functions.h"
#include "common/config_reader.h"
#include "common/error.h"
#include "common/log.h"
#include "common/standard_output.h"
#include "common/thousands.h"
#include "data/token_dataset.h"
#include "data/training_data.h"
#include "report/cost_plan.h"
#include "train/config_file.h"
#include "train/init_source.h"

namespace dsmoe {
namespace {

RunConfig read_config(const PlanCommand& options) {
  RunConfig config;
  const auto overrides = take_overrides("plan", options.overrides);
  const auto given = read_run_config(options.config, overrides, config);
  inherit_model_if_there(posix_io(), config, given);
  const std::string data = config.data.train.empty() ? "" : config.data.train.front();
  if (config.model.vocab_size == 0 && std::filesystem::is_directory(data)) {
    config.model.vocab_size = TokenDataset(data).tokenizer().vocab_size();
  }
  if (config.model.vocab_size == 0) {
    throw Error(fmt::format(
        "{}: model.vocab_size = 0 takes the number of ids from data.train = '{}', which is not "
        "there; pass --model.vocab_size=N",
        options.config,
        data));
  }
  std::optional<int64_t> data_tokens;
  if (config.train.epochs > 0 && std::filesystem::exists(data)) {
    data_tokens = 0;
    const TrainingData opened(config.data.train, config.data.weights, config.data.tokenizer);
    for (const auto& corpus : opened.sources()) *data_tokens += corpus.source->n_tokens();
  }
  for (const auto& note : resolve_units(config, data_tokens)) log_info(note);
  // Neither data nor a run directory is needed to plan.
  config.model.validate();
  if (config.seq_len() > config.model.max_seq_len) {
    throw Error(fmt::format("data.seq_len = {} is above model.max_seq_len = {}",
                            config.data.seq_len,
                            config.model.max_seq_len));
  }
  return config;
}

nlohmann::ordered_json recompute_json(const CostPlan& plan) {
  auto json = nlohmann::ordered_json::object();
  for (const auto& [name, peak, fits] : plan.recompute) {
    json[name] = {{"peak", peak}, {"fits", fits}};
  }
  return json;
}

nlohmann::ordered_json to_json(const CostPlan& plan,
                               const PlanRequest& request,
                               const std::string& currency) {
  nlohmann::ordered_json active = nlohmann::ordered_json::object();
  nlohmann::ordered_json prefill = active;
  nlohmann::ordered_json decode = active;
  for (const auto& cost : plan.policies) {
    active[cost.policy] = cost.active_parameters;
    prefill[cost.policy] = cost.prefill_flops;
    decode[cost.policy] = cost.decode_flops;
  }
  const auto& memory = plan.memory;
  return {{"parameters_total", plan.parameters.total()},
          {"parameters_matrices", plan.parameters.matrices},
          {"parameters_embeddings", plan.parameters.embeddings},
          {"parameters_routers", plan.parameters.routers},
          {"parameters_norms", plan.parameters.norms},
          {"parameters_biases", plan.parameters.biases},
          {"parameters_active", active},
          {"flops_per_token",
           {{"training", plan.train_flops_per_token}, {"prefill", prefill}, {"decode", decode}}},
          {"memory_bytes",
           {{"weights", memory.weights},
            {"gradients", memory.gradients},
            {"optimizer", memory.optimizer},
            {"compute_weights", memory.compute_weights},
            {"activations", memory.activations},
            {"activations_selective", memory.activations_selective},
            {"activations_checkpointed", memory.activations_checkpointed},
            {"loss", memory.loss},
            {"workspace", memory.workspace},
            {"communication_buckets", memory.communication},
            {"exchange", memory.exchange},
            {"tensors", memory.tensors},
            {"heap", memory.heap},
            {"runtime", memory.runtime},
            {"snapshot", memory.snapshot},
            {"peak", memory.peak},
            {"kv_cache", plan.kv_cache_bytes}}},
          {"gpu", request.gpu.name},
          {"gpus", request.n_gpus},
          {"mfu", plan.mfu},
          {"mfu_source", request.mfu ? "given" : "roofline"},
          {"fits", plan.fits},
          {"checkpoint_activations", recompute_json(plan)},
          {"tokens_total", plan.total_tokens},
          {"tokens_per_day", plan.tokens_per_day},
          {"tokens_per_step", plan.tokens_per_step},
          {"step_seconds", plan.step_seconds},
          {"compute_seconds", plan.compute_seconds},
          {"communication_seconds", plan.reduce_seconds},
          {"exposed_communication_seconds", plan.exposed_seconds},
          {"total_seconds", plan.total_seconds},
          {"gpu_hours", plan.gpu_hours},
          {"cost", request.price_per_hour > 0 ? nlohmann::ordered_json(plan.cost) : nullptr},
          {"currency", currency},
          {"tried_on_gpu", false},
          {"sparse_twin",
           {{"parameters_total", plan.sparse_baseline.parameters_total},
            {"flops_per_token", plan.sparse_baseline.train_flops_per_token},
            {"training_flops_ratio", plan.sparse_baseline.flops_ratio},
            {"weight_memory_ratio", plan.sparse_baseline.memory_ratio}}}};
}

void print_parameters(const CostPlan& plan) {
  const auto& count = plan.parameters;
  print_out("parameters {}: matrices {}, embeddings {}, routers {}, norms {}, biases {}\n",
            group_thousands(count.total()),
            group_thousands(count.matrices),
            group_thousands(count.embeddings),
            group_thousands(count.routers),
            group_thousands(count.norms),
            group_thousands(count.biases));
  print_out("{:<24} {:>18} {:>7} {:>20} {:>20}\n",
            "policy",
            "active parameters",
            "share",
            "prefill FLOPs/token",
            "decode FLOPs/token");
  for (const auto& cost : plan.policies) {
    print_out("{:<24} {:>18} {:>6.1f}% {:>20.4g} {:>20.4g}\n",
              cost.policy,
              group_thousands(cost.active_parameters),
              100.0 * cost.active_parameters / static_cast<double>(count.non_embedding()),
              cost.prefill_flops,
              cost.decode_flops);
  }
}

void print_memory(const CostPlan& plan, const RunConfig& config) {
  constexpr double kGib = 1 << 30;
  const auto& memory = plan.memory;
  const auto line = [](const char* what, double bytes) {
    print_out("  {:<44} {:>12.3f} GiB\n", what, bytes / kGib);
  };
  print_out("memory of one rank, micro-batches of {} sequences of {} tokens:\n",
            config.train.batch_size,
            config.seq_len());
  line("weights (float32)", memory.weights);
  line("gradients (float32)", memory.gradients);
  line("optimizer (AdamW)", memory.optimizer);
  line("weights in the compute dtype", memory.compute_weights);
  line("activations, all kept", memory.activations);
  line("activations, checkpoint_activations selective", memory.activations_selective);
  line("activations, checkpoint_activations full", memory.activations_checkpointed);
  line("loss and the head's gradient", memory.loss);
  line("work of one block's backward pass", memory.workspace);
  line("communication buckets", memory.communication);
  line("exchange of updated parameters", memory.exchange);
  line("tensors at one time, as configured", memory.tensors);
  line("free blocks that wait for their size", memory.heap);
  line("code of libraries and kernels (estimate)", memory.runtime);
  line("peak, as configured", memory.peak);
  line("copy that checkpoints are saved from (host)", memory.snapshot);
  line("key/value cache, one full context, bfloat16", plan.kv_cache_bytes);
}

const char* name_of(Recompute recompute) {
  return recompute == Recompute::kNone    ? "none"
         : recompute == Recompute::kBlock ? "full"
                                          : "selective";
}

// Whether the peak fits, and whether it would with less recomputation.
void print_fit(const CostPlan& plan, const PlanRequest& request, const RunConfig& config) {
  const std::string configured = name_of(config.train.checkpoint_activations);
  print_out("  the peak {} the GPU's {:.0f} GB; by checkpoint_activations:",
            plan.fits ? "fits in" : "does not fit in",
            request.gpu.memory_bytes / 1e9);
  for (const auto& [name, peak, fits] : plan.recompute) {
    print_out(" {} {:.1f} GB{}{}",
              name,
              peak / 1e9,
              fits ? "" : " (too much)",
              name == "full" ? "\n" : ",");
  }
  for (const auto& [name, peak, fits] : plan.recompute) {
    if (name == configured) break;
    if (!fits) continue;
    print_out("  less would fit: checkpoint_activations {} computes less again than {}\n",
              name,
              configured);
    break;
  }
}

void print_time(const CostPlan& plan,
                const PlanRequest& request,
                const RunConfig& config,
                const std::string& currency) {
  print_out(
      "training {:.4g} FLOPs per token; {} x {} at {:.4g} FLOP/s (bfloat16, data sheet) and an "
      "MFU of {:.0f} %, {}{}:\n",
      plan.train_flops_per_token,
      request.n_gpus,
      request.gpu.name,
      request.gpu.flops,
      100.0 * plan.mfu,
      request.mfu ? "as given" : "predicted by the roofline of its kernels",
      config.train.checkpoint_activations == Recompute::kNone
          ? ""
          : ", more for what checkpoint_activations computes again");
  print_out("  {} tokens per step, {:.3g} s; {} steps, {} tokens in all\n",
            group_thousands(plan.tokens_per_step),
            plan.step_seconds,
            group_thousands(config.train.steps),
            group_thousands(plan.total_tokens));
  print_out("  {} tokens a day, {:.1f} days, {} GPU hours",
            group_thousands(plan.tokens_per_day),
            plan.total_seconds / 86400.0,
            group_thousands(plan.gpu_hours));
  if (request.price_per_hour > 0) {
    print_out(", {} {} at {:g} {} for a GPU hour",
              group_thousands(plan.cost),
              currency,
              request.price_per_hour,
              currency);
  }
  print_out("\n");
  print_fit(plan, request, config);
  if (request.n_gpus > 1) {
    print_out(
        "  of a step: {:.3g} s computing, {:.3g} s communicating, {:.3g} s of it not hidden\n",
        plan.compute_seconds,
        plan.reduce_seconds,
        plan.exposed_seconds);
  }
  print_out("no GPU has been tried yet: time and cost are predictions\n");
  print_out(
      "assumed: the ranks share a step's micro-batches, each holds weights and gradients whole; a "
      "ring over links of {:.0f} GB/s each way on one host, above {} GPUs {:.0f} GB/s of network "
      "each, at full speed and without latency, beside the backward pass of the last micro-batch\n",
      request.gpu.link_bytes_per_second / 1e9,
      request.gpus_per_host,
      request.network_bytes_per_second / 1e9);
}

void print_sparse_baseline(const CostPlan& plan) {
  print_out(
      "dense training against sparse training at equal quality: {:.2f} times the FLOPs per token, "
      "{:.2f} times the weight memory\n"
      "  the sparse model has {} parameters: the FFN's doubled, 2 of 16 experts used, which "
      "arXiv:2404.05567 takes for equal quality (Table 6);\n"
      "  its Table 3: SMoE-5B averages 56.0, DS-MoE-3B 56.2 and Dense-3B 57.0 after 100B tokens "
      "each\n",
      plan.sparse_baseline.flops_ratio,
      plan.sparse_baseline.memory_ratio,
      group_thousands(plan.sparse_baseline.parameters_total));
}

}  // namespace

int run_plan(const PlanCommand& options) {
  const auto config = read_config(options);
  PlanRequest request{.gpu = find_gpu(options.gpu),
                      .n_gpus = options.n_gpus,
                      .gpus_per_host = options.gpus_per_host,
                      .network_bytes_per_second = options.network_gigabytes * 1e9,
                      .mfu = options.mfu,
                      .price_per_hour = options.price_per_hour,
                      .policies = {}};
  for (const auto& policy : options.policies) {
    request.policies.push_back(parse_routing_plan(policy));
  }
  if (request.policies.empty()) request.policies = default_policies(config.model);
  if (options.roofline) return print_roofline(config, request, options.n_keys, options.json);
  const auto costs = plan_cost(config, request);
  if (options.json) {
    print_json(to_json(costs, request, options.currency));
    return 0;
  }
  print_parameters(costs);
  print_memory(costs, config);
  print_time(costs, request, config, options.currency);
  print_sparse_baseline(costs);
  return 0;
}

}  // namespace dsmoe
