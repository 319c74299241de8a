#include "cli/bench_inference.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <functional>

#include "cli/command_support.h"
#include "cli/device.h"
#include "common/config_reader.h"
#include "common/cpu_features.h"
#include "common/device_module.h"
#include "common/error.h"
#include "common/io.h"
#include "common/standard_output.h"
#include "common/thread_pool.h"
#include "model/io/packed_loader.h"
#include "model/parameter_count.h"
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
  const auto given = read_config_file(
      command.model, command.overrides, [&](ConfigVisitor& visitor) { describe(visitor, config); });
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

// Median, least and greatest over the rounds.
nlohmann::ordered_json spread(const InferBenchResult& result,
                              const std::function<double(const InferBenchRound&)>& value) {
  std::vector<double> values;
  for (const auto& round : result.rounds) values.push_back(value(round));
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return {{"median", 0.5 * (values[(n - 1) / 2] + values[n / 2])},
          {"min", values.front()},
          {"max", values.back()}};
}

const char* isa_name() {
  switch (cpu_isa()) {
    case CpuIsa::kPortable:
      return "portable";
    case CpuIsa::kAvx2:
      return "avx2";
    case CpuIsa::kAvx512:
      return "avx512";
    case CpuIsa::kAvx512Bf16:
      return "avx512bf16";
  }
  return "";
}

nlohmann::ordered_json to_json(const InferenceBenchCommand& command,
                               const ModelConfig& config,
                               const InferBenchOptions& options,
                               const InferBenchResult& result) {
  const auto batch = static_cast<double>(options.batch);
  const double bytes =
      weight_bytes_per_token(config, parse_weight_format(command.dtype), result.active);
  const auto n_prompt = batch * static_cast<double>(options.prompt);
  const auto n_steps = static_cast<double>(options.generate);
  nlohmann::ordered_json json = {{"model", command.model},
                                 {"device", command.device},
                                 {"dtype", command.dtype},
                                 {"policy", options.plan.to_string()},
                                 {"execution", command.execution},
                                 {"threads", kernel_threads().n_threads()},
                                 {"batch", options.batch},
                                 {"prompt", options.prompt},
                                 {"generate", options.generate},
                                 {"depth", options.depth},
                                 {"repetitions", options.repetitions}};
  if (options.prompt > 0) {
    json["prefill_tokens_per_second"] = spread(
        result, [&](const InferBenchRound& round) { return n_prompt / round.prefill_seconds; });
    json["seconds_to_first_token"] =
        spread(result, [](const InferBenchRound& round) { return round.prefill_seconds; });
  }
  if (options.generate > 0) {
    json["decode_tokens_per_second"] = spread(result, [&](const InferBenchRound& round) {
      return batch * n_steps / round.decode_seconds;
    });
    json["bytes_per_token"] = bytes;
  }
  if (options.generate > 0 && options.measure_bandwidth) {
    json["bandwidth_share"] = spread(result, [&](const InferBenchRound& round) {
      return bytes * n_steps / round.decode_seconds / round.bandwidth();
    });
  }
  if (options.measure_bandwidth) {
    json["bandwidth_bytes_per_second"] =
        spread(result, [](const InferBenchRound& round) { return round.bandwidth(); });
  }
  json["active_experts"] = active_experts_json(result.active);
  json["active_parameters"] = active_parameters(config, result.active);
  json["build"] = isa_name();
  return json;
}

void print_text(const nlohmann::ordered_json& json) {
  const auto line = [&](const char* name, const char* key, double unit) {
    if (!json.contains(key)) return;
    const auto& value = json[key];
    print_out("{:<24} {:>9.2f}  ({:.2f} to {:.2f})\n",
              name,
              value["median"].get<double>() / unit,
              value["min"].get<double>() / unit,
              value["max"].get<double>() / unit);
  };
  print_out("{} {}, policy {}, {} threads, {} sequences; median (least to greatest) of {}\n",
            json["model"].get<std::string>(),
            json["dtype"].get<std::string>(),
            json["policy"].get<std::string>(),
            json["threads"].get<int>(),
            json["batch"].get<int64_t>(),
            json["repetitions"].get<int64_t>());
  line("prefill, tokens/s", "prefill_tokens_per_second", 1.0);
  line("decode, tokens/s", "decode_tokens_per_second", 1.0);
  line("read bandwidth, GB/s", "bandwidth_bytes_per_second", 1e9);
  print_out("{:<24} {:>9.2f}\n", "load, s", json["load_seconds"].get<double>());
  if (json["batch"] == 1) line("decode's share of it, %", "bandwidth_share", 0.01);
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
  nlohmann::ordered_json memory;
  add_load_json(memory, loading.count(), model);
  const auto result = run_infer_bench(model, options);
  auto json = to_json(command, model->config(), options, result);
  // Before the repetitions: the memory that bandwidth is measured over is none of the model's.
  json.update(memory);
  if (command.json) {
    print_json(json);
  } else {
    print_text(json);
  }
  return 0;
}

}  // namespace dsmoe
