#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <memory>

#include "cli/bench_inference.h"
#include "cli/command_support.h"
#include "cli/commands.h"
#include "cli/device.h"
#include "cli/rank_support.h"
#include "common/config_reader.h"
#include "common/error.h"
#include "common/process_setup.h"
#include "common/standard_output.h"
#include "train/caching_allocator.h"
#include "train/init_source.h"
#include "train/train_bench.h"

namespace dsmoe {
namespace {

struct Options {
  std::vector<std::string> configs;
  std::vector<std::string> overrides;
  TrainBenchOptions steps;
  InferenceBenchCommand inference;
  std::string device;  // empty: the configs' own
  int threads = 0;
  bool train = false;
  bool no_memory = false;
  bool memory_only = false;
  bool print_config = false;
  bool json = false;
};

const char* name_of(DeviceKind device) {
  return device == DeviceKind::kCuda ? "cuda" : device == DeviceKind::kAuto ? "auto" : "cpu";
}

std::vector<RunConfig> read_configs(const Options& options) {
  auto overrides = take_overrides("bench", options.overrides);
  if (!options.device.empty()) overrides.push_back("device=" + options.device);
  std::vector<RunConfig> configs;
  for (const auto& path : options.configs) {
    RunConfig config;
    const auto given = read_config_file(
        path, overrides, [&](ConfigVisitor& visitor) { describe(visitor, config); });
    inherit_model_if_there(posix_io(), config, given);
    const auto device = open_device(name_of(config.device));
    config.device = device.is_cpu() ? DeviceKind::kCpu : DeviceKind::kCuda;
    if (!configs.empty() && config.device != configs.front().device) {
      throw Error(fmt::format("bench: expected configs of one device, got another in {}", path));
    }
    configs.push_back(resolve_bench_config(std::move(config)));
  }
  return configs;
}

const char* dtype_name_of(const RunConfig& config) {
  return config.train.compute_dtype == ComputeDtype::kBfloat16 ? "bfloat16" : "float32";
}

nlohmann::ordered_json parts_json(const TrainBenchResult& result) {
  nlohmann::ordered_json json;
  for (size_t part = 0; part < kStepParts; ++part) {
    json[kStepPartNames.at(part)] =
        result.median_of([part](const StepTimes& step) { return step.parts.at(part); });
  }
  return json;
}

void add_speed(nlohmann::ordered_json& json,
               const TrainBenchResult& result,
               const TrainBenchResult& first) {
  double fastest = result.steps.front().total();
  double slowest = fastest;
  for (const auto& step : result.steps) {
    fastest = std::min(fastest, step.total());
    slowest = std::max(slowest, step.total());
  }
  const double seconds = result.median_of(&StepTimes::total);
  const auto tokens = static_cast<double>(result.tokens_per_step);
  json["parameters"] = result.parameters;
  json["tokens_per_step"] = result.tokens_per_step;
  json["flops_per_token"] = result.flops_per_token;
  json["tokens_per_second"] = tokens / seconds;
  json["step_seconds"] = seconds;
  json["step_seconds_min"] = fastest;
  json["step_seconds_max"] = slowest;
  if (result.has_parts) json["parts"] = parts_json(result);
  json["matrix_flops_per_second"] = result.peak_flops;
  json["mfu"] = result.mfu();
  json["step_seconds_over_first"] = paired_ratio(result, first, &StepTimes::total);
  json["cpu_seconds"] = result.median_of(&StepTimes::cpu);
  json["cpu_seconds_over_first"] = paired_ratio(result, first, &StepTimes::cpu);
  json["flops_over_first"] = result.flops_per_token / first.flops_per_token;
  json["losses"] = result.losses;
}

void print_text(const nlohmann::ordered_json& results, int threads) {
  const auto milliseconds = [](const nlohmann::ordered_json& value) {
    return 1e3 * value.get<double>();
  };
  print_out("{} threads; milliseconds a step: median, minimum, maximum, then medians by part\n",
            threads);
  print_out(
      "{:<24} {:<8} {:>8} {:>8} {:>8} |{:>6} {:>8} {:>7} {:>8} {:>9} {:>6} |{:>8} {:>5} {:>6} "
      "{:>6} {:>6} {:>7}\n",
      "config",
      "dtype",
      "median",
      "min",
      "max",
      "data",
      "forward",
      "loss",
      "backward",
      "optimizer",
      "other",
      "tok/s",
      "mfu",
      "time",
      "cpu",
      "flops",
      "MiB");
  for (const auto& result : results) {
    print_out("{:<24} {:<8}",
              result["name"].get<std::string>(),
              result["compute_dtype"].get<std::string>());
    if (result.contains("step_seconds")) {
      const auto part = [&](const char* name) {
        return result.contains("parts") ? fmt::format("{:.1f}", milliseconds(result["parts"][name]))
                                        : std::string("-");
      };
      print_out(
          " {:>8.1f} {:>8.1f} {:>8.1f} |{:>6} {:>8} {:>7} {:>8} {:>9} {:>6} "
          "|{:>8.0f} {:>4.0f}% {:>6.3f} {:>6.3f} {:>6.3f}",
          milliseconds(result["step_seconds"]),
          milliseconds(result["step_seconds_min"]),
          milliseconds(result["step_seconds_max"]),
          part("data"),
          part("forward"),
          part("loss"),
          part("backward"),
          part("optimizer"),
          part("other"),
          result["tokens_per_second"].get<double>(),
          100.0 * result["mfu"].get<double>(),
          result["step_seconds_over_first"].get<double>(),
          result["cpu_seconds_over_first"].get<double>(),
          result["flops_over_first"].get<double>());
    }
    if (result.contains("peak_memory_bytes")) {
      print_out(" {:>7.0f}", result["peak_memory_bytes"].get<double>() / (1 << 20));
    }
    print_out("\n");
  }
  print_out(
      "time (wall), cpu (processor) and flops are over those of the first config, the times round "
      "by "
      "round; on a busy machine trust cpu\n");
}

nlohmann::ordered_json entry_of(const Options& options, size_t i, const RunConfig& config) {
  return {{"config", options.configs[i]},
          {"name", std::filesystem::path(options.configs[i]).stem().string()},
          {"compute_dtype", dtype_name_of(config)},
          {"checkpoint_activations", config.train.checkpoint_activations != Recompute::kNone}};
}

void print_results(const Options& options, const nlohmann::ordered_json& entries) {
  const int threads = at::get_num_threads();
  if (!options.json) return print_text(entries, threads);
  auto json = entries.front();
  json["threads"] = threads;
  json["warmup"] = options.steps.warmup;
  json["repetitions"] = options.steps.repetitions;
  json["configs"] = entries;
  print_json(json);
}

void add_memory(nlohmann::ordered_json& json, const StepMemory& memory) {
  json["peak_memory_bytes"] = memory.resident;
  json["peak_tensor_bytes"] = memory.tensors;
  json["peak_held_bytes"] = memory.held;
}

// By rank.
std::vector<StepMemory> gather_memory(const StepMemory& own, RankGroup& ranks) {
  const auto text = nlohmann::json{own.resident, own.held, own.tensors}.dump();
  std::vector<StepMemory> memory;
  for (const auto& one : ranks.all_gather(text, "comparing the peaks of memory")) {
    const auto numbers = nlohmann::json::parse(one);
    memory.push_back({.resident = numbers.at(0), .held = numbers.at(1), .tensors = numbers.at(2)});
  }
  return memory;
}

// The greatest of each kind.
void add_memory_of_ranks(nlohmann::ordered_json& json, const std::vector<StepMemory>& memory) {
  StepMemory greatest;
  std::vector<int64_t> resident;
  for (const auto& one : memory) {
    resident.push_back(one.resident);
    greatest.resident = std::max(greatest.resident, one.resident);
    greatest.held = std::max(greatest.held, one.held);
    greatest.tensors = std::max(greatest.tensors, one.tensors);
  }
  add_memory(json, greatest);
  json["peak_memory_bytes_by_rank"] = resident;
}

// One config on the ranks that a launcher started; rank 0 prints.
int bench_train_ranks(const Options& options, const RunConfig& config, const LaunchEnv& env) {
  set_threads(static_cast<int>(threads_of_rank(options.threads, env)));
  caching_allocator::install();
  const auto ranks = join_job(env, config.distributed);
  auto entry = entry_of(options, 0, config);
  entry["ranks"] = ranks->world_size();
  const bool on_cpu = config.device == DeviceKind::kCpu;
  std::vector<StepMemory> memory;
  // First, before the measured peaks of matrix products take memory that no step takes.
  if (!options.no_memory && on_cpu) {
    memory = gather_memory(measure_step_memory(config, *ranks), *ranks);
  }
  if (!options.memory_only) {
    const auto result = run_train_bench({config}, options.steps, *ranks).front();
    add_speed(entry, result, result);
    if (!on_cpu) entry["peak_memory_bytes"] = result.peak_memory_bytes;
  }
  if (!memory.empty()) add_memory_of_ranks(entry, memory);
  ranks->barrier("leaving together");
  if (ranks->rank() == 0) print_results(options, nlohmann::ordered_json::array({entry}));
  return 0;
}

int bench_train(const Options& options) {
  auto configs = read_configs(options);
  if (options.print_config) {
    for (auto& config : configs) {
      print_out("---\n{}",
                config_to_yaml([&](ConfigVisitor& visitor) { describe(visitor, config); }));
    }
    return 0;
  }
  const auto env = read_launch_env(process_environment);
  if (env.world_size > 1) {
    if (configs.size() == 1) return bench_train_ranks(options, configs.front(), env);
    throw Error(
        fmt::format("bench: expected one config for several ranks, got {}", configs.size()));
  }
  set_threads(options.threads);
  caching_allocator::install();
  RankGroup one_rank;
  std::vector<StepMemory> memory;
  const bool on_cpu = configs.front().device == DeviceKind::kCpu;
  if (!options.no_memory && on_cpu) {
    // First, while this process has no threads: the children are forks of it.
    for (const auto& config : configs) memory.push_back(measure_step_memory_apart(config));
  }
  std::vector<TrainBenchResult> results;
  if (!options.memory_only) results = run_train_bench(configs, options.steps, one_rank);
  nlohmann::ordered_json entries = nlohmann::ordered_json::array();
  for (size_t i = 0; i < configs.size(); ++i) {
    auto entry = entry_of(options, i, configs[i]);
    if (!results.empty()) add_speed(entry, results[i], results.front());
    if (!memory.empty()) add_memory(entry, memory[i]);
    if (!on_cpu && !results.empty()) entry["peak_memory_bytes"] = results[i].peak_memory_bytes;
    entries.push_back(std::move(entry));
  }
  print_results(options, entries);
  return 0;
}

int bench(const Options& options) {
  if (options.train) return bench_train(options);
  if (options.configs.size() != 1) {
    throw Error(
        fmt::format("bench: expected one config or checkpoint, got {}; several are for --train",
                    options.configs.size()));
  }
  auto command = options.inference;
  if (!options.device.empty()) command.device = options.device;
  command.model = options.configs.front();
  command.overrides = take_overrides("bench", options.overrides);
  command.options.repetitions = options.steps.repetitions;
  command.options.warmup = options.steps.warmup;
  command.threads = options.threads;
  command.json = options.json;
  return bench_inference(command);
}

void add_inference_options(Command& command, InferenceBenchCommand& inference) {
  const auto count = [&](const char* name, int64_t& value, int64_t least, const char* text) {
    command.option(name, value, text).range(least, int64_t{1} << 24);
  };
  count("--prompt", inference.options.prompt, 0, "tokens of the prompt, 0: none");
  count("--generate", inference.options.generate, 0, "tokens to decode, 0: none");
  count("--depth", inference.options.depth, 0, "tokens in the cache before either");
  count("--batch", inference.options.batch, 1, "sequences at once");
  command.option("--policy", inference.policy, "as for eval (default: the training selection)");
  command.option("--execution", inference.execution, "auto, dense or sparse");
  command.option("--dtype", inference.dtype, "of the weights: float32, bfloat16 or int8");
}

}  // namespace

void add_bench_command(CommandLine& line) {
  auto options = std::make_shared<Options>();
  auto& command = line.subcommand(
      "bench",
      "Measures prompts and decoding of a config with random weights or of a checkpoint, or with\n"
      "--train the training step of one or several configs, in turn, on random tokens; further\n"
      "arguments --section.key=value override keys of the configs.\n"
      "Example: dsmoe bench --config configs/bench/olmoe.yaml --policy top_k=8 --dtype bfloat16");
  command.flag("--train", options->train, "measure the training step");
  command
      .option(
          "--config",
          options->configs,
          "YAML files, or without --train a checkpoint; the first is what others are compared with")
      .path()
      .required();
  command.option("--repetitions", options->steps.repetitions, "counted steps of every config")
      .range(1, 1 << 20);
  command.option("--warmup", options->steps.warmup, "steps of every config before these")
      .range(0, 1 << 20);
  command.option("--threads", options->threads, "0: all cores").range(0, 4096);
  command.option("--device", options->device, "cpu, cuda or auto: with --train the key device");
  const auto no_memory = command.flag("--no-memory", options->no_memory, "leave out peak memory");
  command.flag("--memory-only", options->memory_only, "peak memory and nothing else")
      .excludes(no_memory);
  command.flag("--print-config",
               options->print_config,
               "print the resolved configs, one YAML document each, then stop");
  command.flag("--json",
               options->json,
               "one JSON object on standard output: the first config's result, and `configs`");
  add_inference_options(command, options->inference);
  command.other_arguments(options->overrides);
  command.on_run([options] { return bench(*options); });
}

}  // namespace dsmoe
