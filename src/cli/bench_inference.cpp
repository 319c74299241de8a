#include "cli/bench_inference.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>
#include <optional>

#include "cli/command_support.h"
#include "cli/device.h"
#include "common/config_reader.h"
#include "common/cpu_features.h"
#include "common/device_module.h"
#include "common/error.h"
#include "common/io.h"
#include "common/machine.h"
#include "common/standard_output.h"
#include "common/thread_pool.h"
#include "model/io/packed_loader.h"
#include "model/parameter_count.h"
#include "train/config_file.h"
#include "train/init_source.h"
#include "train/train_config.h"

namespace dsmoe {
namespace {

// Packed on the CPU, else as it was trained.
Transformer make_model(const InferenceBenchCommand& command,
                       PackedFormat format,
                       at::Device device) {
  if (std::filesystem::is_directory(command.model)) {
    auto& io = posix_io();
    const auto checkpoint = find_checkpoint(io, command.model);
    if (device.is_cpu()) return load_packed_model(io, checkpoint, {.format = format});
    auto model = load_model(io, checkpoint);
    model->to(device);
    return model;
  }
  RunConfig config;
  const auto given = read_run_config(command.model, command.overrides, config);
  inherit_model_if_there(posix_io(), config, given);
  if (config.model.vocab_size == 0) {
    throw Error(fmt::format("{}: model.vocab_size = 0: expected a number, as no data is read",
                            command.model));
  }
  Transformer model(config.model);
  init_weights(model, config.seed);
  if (device.is_cpu()) {
    pack_weights(model, {.format = format});
  } else {
    model->to(device);
  }
  return model;
}

RoutingPlan make_plan(const InferenceBenchCommand& command, const ModelConfig& config) {
  const auto plan =
      parse_routing_plan(command.policy.empty() ? config.training_policy : command.policy)
          .with(parse_execution(command.execution));
  plan.validate(static_cast<size_t>(config.n_layers),
                config.attention.kind == AttentionKind::kMoa ? config.attention.n_experts : 0,
                config.has_ffn_experts() ? config.ffn.n_experts : 0);
  return plan;
}

// Over the rounds.
struct Spread {
  double median = 0;
  double least = 0;
  double greatest = 0;
};

struct Report {
  int threads = 0;
  std::string policy;
  std::optional<Spread> prefill = {};      // tokens per second
  std::optional<Spread> first_token = {};  // seconds
  std::optional<Spread> decode = {};       // tokens per second
  std::optional<Spread> share = {};        // of the bandwidth
  std::optional<Spread> bandwidth = {};    // bytes per second
  double bytes_per_token = 0;
  ActiveExperts active = {};
  double active_parameters = 0;
  double load_seconds = 0;
  LoadedBytes bytes = {};
};

Spread spread(const InferBenchResult& result,
              const std::function<double(const InferBenchRound&)>& value) {
  std::vector<double> values;
  for (const auto& round : result.rounds) values.push_back(value(round));
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return {0.5 * (values[(n - 1) / 2] + values[n / 2]), values.front(), values.back()};
}

Report make_report(const InferenceBenchCommand& command,
                   const ModelConfig& config,
                   const InferBenchOptions& options,
                   const InferBenchResult& result) {
  const auto batch = static_cast<double>(options.batch);
  const auto n_prompt = batch * static_cast<double>(options.prompt);
  const auto n_steps = static_cast<double>(options.generate);
  const double bytes =
      weight_bytes_per_token(config, parse_weight_format(command.dtype), result.active);
  Report report{.threads = kernel_threads().n_threads(),
                .policy = options.plan.to_string(),
                .bytes_per_token = bytes,
                .active = result.active,
                .active_parameters = active_parameters(config, result.active)};
  if (options.prompt > 0) {
    report.prefill = spread(
        result, [&](const InferBenchRound& round) { return n_prompt / round.prefill_seconds; });
    report.first_token =
        spread(result, [](const InferBenchRound& round) { return round.prefill_seconds; });
  }
  if (options.generate > 0) {
    report.decode = spread(result, [&](const InferBenchRound& round) {
      return batch * n_steps / round.decode_seconds;
    });
  }
  if (options.generate > 0 && options.measure_bandwidth) {
    report.share = spread(result, [&](const InferBenchRound& round) {
      return bytes * n_steps / round.decode_seconds / round.bandwidth();
    });
  }
  if (options.measure_bandwidth) {
    report.bandwidth =
        spread(result, [](const InferBenchRound& round) { return round.bandwidth(); });
  }
  return report;
}

nlohmann::ordered_json to_json(const InferenceBenchCommand& command, const Report& report) {
  nlohmann::ordered_json json = {{"model", command.model},
                                 {"device", command.device},
                                 {"dtype", command.dtype},
                                 {"policy", report.policy},
                                 {"execution", command.execution},
                                 {"threads", report.threads},
                                 {"batch", command.options.batch},
                                 {"prompt", command.options.prompt},
                                 {"generate", command.options.generate},
                                 {"depth", command.options.depth},
                                 {"repetitions", command.options.repetitions}};
  const auto add = [&](const char* key, const std::optional<Spread>& spread) {
    if (!spread) return;
    json[key] = {{"median", spread->median}, {"min", spread->least}, {"max", spread->greatest}};
  };
  add("prefill_tokens_per_second", report.prefill);
  add("seconds_to_first_token", report.first_token);
  add("decode_tokens_per_second", report.decode);
  if (report.decode) json["bytes_per_token"] = report.bytes_per_token;
  add("bandwidth_share", report.share);
  add("bandwidth_bytes_per_second", report.bandwidth);
  json["active_experts"] = active_experts_json(report.active);
  json["active_parameters"] = report.active_parameters;
  json["build"] = option_of(cpu_isa());
  add_load_json(json, report.load_seconds, report.bytes);
  return json;
}

void print_text(const InferenceBenchCommand& command, const Report& report) {
  const auto line = [](const char* name, const std::optional<Spread>& spread, double unit) {
    if (!spread) return;
    print_out("{:<24} {:>9.2f}  ({:.2f} to {:.2f})\n",
              name,
              spread->median / unit,
              spread->least / unit,
              spread->greatest / unit);
  };
  print_out("{} {}, policy {}, {} threads, {} sequences; median (least to greatest) of {}\n",
            command.model,
            command.dtype,
            report.policy,
            report.threads,
            command.options.batch,
            command.options.repetitions);
  line("prefill, tokens/s", report.prefill, 1.0);
  line("decode, tokens/s", report.decode, 1.0);
  line("read bandwidth, GB/s", report.bandwidth, 1e9);
  print_out("{:<24} {:>9.2f}\n", "load, s", report.load_seconds);
  if (command.options.batch == 1) line("decode's share of it, %", report.share, 0.01);
}

}  // namespace

int bench_inference(const InferenceBenchCommand& command) {
  set_threads(command.threads);
  const auto format = parse_weight_format(command.dtype);
  const auto device = open_device(command.device);
  if (!device.is_cpu() && format == PackedFormat::kInt8) {
    throw Error("--dtype int8: expected --device cpu, whose kernels alone have it");
  }
  const auto start = std::chrono::steady_clock::now();
  auto model = make_model(command, format, device);
  const std::chrono::duration<double> loading = std::chrono::steady_clock::now() - start;
  auto options = command.options;
  options.plan = make_plan(command, model->config());
  options.compute_dtype = compute_type_of(format);
  if (!device.is_cpu()) {
    options.compute_dtype = format == PackedFormat::kFloat32 ? at::kFloat : at::kBFloat16;
    options.measure_bandwidth = false;  // that of the CPU
    options.wait = [] { open_cuda_module().synchronize(); };
  }
  if (options.depth + std::max(options.prompt, options.generate) > model->config().max_seq_len) {
    throw Error(fmt::format("bench: depth and tokens are above model.max_seq_len = {}",
                            model->config().max_seq_len));
  }
  // Before the repetitions: the memory that bandwidth is measured over is none of the model's.
  const auto bytes = loaded_bytes(model);
  const auto result = run_infer_bench(model, options);
  auto report = make_report(command, model->config(), options, result);
  report.load_seconds = loading.count();
  report.bytes = bytes;
  if (command.json) {
    print_json(to_json(command, report));
  } else {
    print_text(command, report);
  }
  return 0;
}

}  // namespace dsmoe
