#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <utility>

#include "cli/bench_inference.h"
#include "cli/bench_sampler.h"
#include "cli/command_support.h"
#include "cli/device.h"
#include "cli/options/bench.h"
#include "cli/rank_support.h"
#include "cli/run_functions.h"
#include "common/config_reader.h"
#include "common/error.h"
#include "common/process_setup.h"
#include "common/standard_output.h"
#include "train/caching_allocator.h"
#include "train/config_file.h"
#include "train/init_source.h"
#include "train/train_bench.h"

namespace dsmoe {
namespace {

constexpr int64_t kDrawsPerRepetition = 10;

TrainBenchOptions steps_of(const BenchCommand& options) {
  return {.warmup = options.warmup, .repetitions = options.repetitions};
}

const char* name_of(DeviceKind device) {
  return device == DeviceKind::kCuda ? "cuda" : device == DeviceKind::kAuto ? "auto" : "cpu";
}

std::vector<RunConfig> read_configs(const BenchCommand& options) {
  auto overrides = take_overrides("bench", options.overrides);
  if (!options.device.empty()) overrides.push_back("device=" + options.device);
  std::vector<RunConfig> configs;
  for (const auto& path : options.configs) {
    RunConfig config;
    const auto given = read_run_config(path, overrides, config);
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

struct Speed {
  TrainBenchResult result;
  // Over those of the first config; times round by round.
  double step_ratio = 1;
  double cpu_ratio = 1;
  double flops_ratio = 1;
};

// One config, as far as it was measured.
struct Entry {
  std::string config;
  std::string name;
  std::string dtype;
  bool recomputes = false;
  std::optional<int64_t> n_ranks = {};
  std::optional<Speed> speed = {};
  std::optional<StepMemory> memory = {};  // of the greatest rank
  std::vector<int64_t> resident_by_rank = {};
  std::optional<int64_t> device_peak = {};  // bytes
};

Speed speed_of(const TrainBenchResult& result, const TrainBenchResult& first) {
  return {.result = result,
          .step_ratio = paired_ratio(result, first, &StepTimes::total),
          .cpu_ratio = paired_ratio(result, first, &StepTimes::cpu),
          .flops_ratio = result.flops_per_token / first.flops_per_token};
}

double median_part(const TrainBenchResult& result, size_t part) {
  return result.median_of([part](const StepTimes& step) { return step.parts.at(part); });
}

// Seconds of the fastest and of the slowest step.
std::pair<double, double> extremes(const TrainBenchResult& result) {
  double fastest = result.steps.front().total();
  double slowest = fastest;
  for (const auto& step : result.steps) {
    fastest = std::min(fastest, step.total());
    slowest = std::max(slowest, step.total());
  }
  return {fastest, slowest};
}

double tokens_per_second(const TrainBenchResult& result) {
  return static_cast<double>(result.tokens_per_step) / result.median_of(&StepTimes::total);
}

void add_speed(nlohmann::ordered_json& json, const Speed& speed) {
  const auto& result = speed.result;
  const auto [fastest, slowest] = extremes(result);
  json["parameters"] = result.parameters;
  json["tokens_per_step"] = result.tokens_per_step;
  json["flops_per_token"] = result.flops_per_token;
  json["tokens_per_second"] = tokens_per_second(result);
  json["step_seconds"] = result.median_of(&StepTimes::total);
  json["step_seconds_min"] = fastest;
  json["step_seconds_max"] = slowest;
  for (size_t part = 0; result.has_parts && part < kStepParts; ++part) {
    json["parts"][kStepPartNames.at(part)] = median_part(result, part);
  }
  json["matrix_flops_per_second"] = result.peak_flops;
  json["mfu"] = result.mfu();
  json["step_seconds_over_first"] = speed.step_ratio;
  json["cpu_seconds"] = result.median_of(&StepTimes::cpu);
  json["cpu_seconds_over_first"] = speed.cpu_ratio;
  json["flops_over_first"] = speed.flops_ratio;
  json["losses"] = result.losses;
}

nlohmann::ordered_json to_json(const Entry& entry) {
  nlohmann::ordered_json json = {{"config", entry.config},
                                 {"name", entry.name},
                                 {"compute_dtype", entry.dtype},
                                 {"checkpoint_activations", entry.recomputes}};
  if (entry.n_ranks) json["ranks"] = *entry.n_ranks;
  if (entry.speed) add_speed(json, *entry.speed);
  if (entry.device_peak) json["peak_memory_bytes"] = *entry.device_peak;
  if (entry.memory) {
    json["peak_memory_bytes"] = entry.memory->resident;
    json["peak_tensor_bytes"] = entry.memory->tensors;
    json["peak_held_bytes"] = entry.memory->held;
  }
  if (!entry.resident_by_rank.empty()) json["peak_memory_bytes_by_rank"] = entry.resident_by_rank;
  return json;
}

void print_speed(const Speed& speed) {
  const auto& result = speed.result;
  const auto [fastest, slowest] = extremes(result);
  print_out(" {:>8.1f} {:>8.1f} {:>8.1f} |",
            1e3 * result.median_of(&StepTimes::total),
            1e3 * fastest,
            1e3 * slowest);
  constexpr std::array<int, kStepParts> kWidths{6, 8, 7, 8, 9, 6};
  for (size_t part = 0; part < kStepParts; ++part) {
    const auto text = result.has_parts ? fmt::format("{:.1f}", 1e3 * median_part(result, part))
                                       : std::string("-");
    print_out("{:>{}} ", text, kWidths.at(part));
  }
  print_out("|{:>8.0f} {:>4.0f}% {:>6.3f} {:>6.3f} {:>6.3f}",
            tokens_per_second(result),
            100.0 * result.mfu(),
            speed.step_ratio,
            speed.cpu_ratio,
            speed.flops_ratio);
}

void print_text(const std::vector<Entry>& entries, int threads) {
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
  for (const auto& entry : entries) {
    print_out("{:<24} {:<8}", entry.name, entry.dtype);
    if (entry.speed) print_speed(*entry.speed);
    const auto peak = entry.memory ? std::optional(entry.memory->resident) : entry.device_peak;
    if (peak) print_out(" {:>7.0f}", static_cast<double>(*peak) / (1 << 20));
    print_out("\n");
  }
  print_out(
      "time (wall), cpu (processor) and flops are over those of the first config, the times round "
      "by "
      "round; on a busy machine trust cpu\n");
}

Entry entry_of(const BenchCommand& options, size_t i, const RunConfig& config) {
  return {.config = options.configs[i],
          .name = std::filesystem::path(options.configs[i]).stem().string(),
          .dtype = dtype_name_of(config),
          .recomputes = config.train.checkpoint_activations != Recompute::kNone};
}

void print_results(const BenchCommand& options, const std::vector<Entry>& entries) {
  const int threads = at::get_num_threads();
  if (!options.json) return print_text(entries, threads);
  auto json = to_json(entries.front());
  json["threads"] = threads;
  json["warmup"] = options.warmup;
  json["repetitions"] = options.repetitions;
  for (const auto& entry : entries) json["configs"].push_back(to_json(entry));
  print_json(json);
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
StepMemory greatest_of(const std::vector<StepMemory>& memory) {
  StepMemory greatest;
  for (const auto& one : memory) {
    greatest.resident = std::max(greatest.resident, one.resident);
    greatest.held = std::max(greatest.held, one.held);
    greatest.tensors = std::max(greatest.tensors, one.tensors);
  }
  return greatest;
}

// One config on the ranks that a launcher started; rank 0 prints.
int bench_train_ranks(const BenchCommand& options, const RunConfig& config, const LaunchEnv& env) {
  set_threads(static_cast<int>(threads_of_rank(options.threads, env)));
  caching_allocator::install();
  const auto ranks = join_job(env, config.distributed);
  auto entry = entry_of(options, 0, config);
  entry.n_ranks = ranks->world_size();
  const bool on_cpu = config.device == DeviceKind::kCpu;
  std::vector<StepMemory> memory;
  // First, before the measured peaks of matrix products take memory that no step takes.
  if (!options.no_memory && on_cpu) {
    memory = gather_memory(measure_step_memory(config, *ranks), *ranks);
  }
  if (!options.memory_only) {
    const auto result = run_train_bench({config}, steps_of(options), *ranks).front();
    entry.speed = speed_of(result, result);
    if (!on_cpu) entry.device_peak = result.peak_memory_bytes;
  }
  if (!memory.empty()) entry.memory = greatest_of(memory);
  for (const auto& one : memory) entry.resident_by_rank.push_back(one.resident);
  ranks->barrier("leaving together");
  if (ranks->rank() == 0) print_results(options, {entry});
  return 0;
}

int bench_train(const BenchCommand& options) {
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
  if (!options.memory_only) results = run_train_bench(configs, steps_of(options), one_rank);
  std::vector<Entry> entries;
  for (size_t i = 0; i < configs.size(); ++i) {
    auto entry = entry_of(options, i, configs[i]);
    if (!results.empty()) entry.speed = speed_of(results[i], results.front());
    if (!memory.empty()) entry.memory = memory[i];
    if (!on_cpu && !results.empty()) entry.device_peak = results[i].peak_memory_bytes;
    entries.push_back(std::move(entry));
  }
  print_results(options, entries);
  return 0;
}

}  // namespace

int run_bench(const BenchCommand& options) {
  if (options.sampler) {
    return bench_sampler({.repetitions = options.repetitions * kDrawsPerRepetition,
                          .threads = options.threads,
                          .json = options.json});
  }
  if (options.configs.empty()) throw Error("--config is required; see --help");
  if (options.train) return bench_train(options);
  if (options.configs.size() != 1) {
    throw Error(
        fmt::format("bench: expected one config or checkpoint, got {}; several are for --train",
                    options.configs.size()));
  }
  return bench_inference({.model = options.configs.front(),
                          .overrides = take_overrides("bench", options.overrides),
                          .options = {.prompt = options.prompt,
                                      .generate = options.generate,
                                      .depth = options.depth,
                                      .batch = options.batch,
                                      .repetitions = options.repetitions,
                                      .warmup = options.warmup},
                          .policy = options.policy,
                          .execution = options.execution,
                          .dtype = options.dtype,
                          .device = options.device.empty() ? "cpu" : options.device,
                          .threads = options.threads,
                          .json = options.json});
}

}  // namespace dsmoe
