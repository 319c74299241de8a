#include <fmt/format.h>

#include <cstdio>
#include <memory>

#include "cli/command_support.h"
#include "cli/device.h"
#include "cli/options/train.h"
#include "cli/rank_support.h"
#include "cli/run_functions.h"
#include "cli/run_summary_output.h"
#include "cli/run_text.h"
#include "common/config_reader.h"
#include "common/error.h"
#include "common/log.h"
#include "common/standard_output.h"
#include "common/stop_signal.h"
#include "train/caching_allocator.h"
#include "train/config_file.h"
#include "train/init_source.h"
#include "train/trainer.h"

namespace dsmoe {
namespace {

// A number that was not measured is null.
void print_result(const TrainResult& result) {
  using Json = nlohmann::ordered_json;
  const auto of_last = [&](auto member) {
    return result.last ? Json((*result.last).*member) : Json(nullptr);
  };
  Json json = {
      {"step", result.step}, {"tokens", result.tokens}, {"loss", of_last(&StepMetrics::loss)}};
  Json weights = Json::object();
  for (const auto& name : loss_names()) json[loss_key(name)] = nullptr;
  for (const auto& term : result.last ? result.last->loss_terms : std::vector<LossTerm>{}) {
    json[loss_key(term.name)] = term.value;
    weights[loss_key(term.name)] = term.weight;
  }
  json["loss_weights"] = std::move(weights);
  json["validation_loss"] = result.validation_loss ? Json(*result.validation_loss) : Json(nullptr);
  json["validations"] = Json::array();
  for (const auto& score : result.validations) {
    json["validations"].push_back(
        {{"policy", score.policy},
         {"loss", score.loss},
         {"perplexity", score.perplexity()},
         {"bits_per_byte", score.bits_per_byte ? Json(*score.bits_per_byte) : Json(nullptr)},
         {"active_parameters", score.active_parameters},
         {"active_share", score.active_share}});
  }
  json["best_step"] = result.best_step > 0 ? Json(result.best_step) : Json(nullptr);
  json["best_loss"] = result.best_step > 0 ? Json(result.best_loss) : Json(nullptr);
  json["seconds"] = result.seconds;
  json["tokens_per_second"] = of_last(&StepMetrics::tokens_per_second);
  json["flops_per_second"] = of_last(&StepMetrics::flops_per_second);
  json["mfu"] = result.last && result.last->mfu ? Json(*result.last->mfu) : Json(nullptr);
  json["peak_memory_bytes"] = of_last(&StepMetrics::peak_memory_bytes);
  json["stopped"] = result.stopped;
  json["checkpoint"] = result.checkpoint;
  print_json(json);
}

// `train: expected memory of at most 23.54 GiB, got 40.00 GiB; ADVICE`
[[noreturn]] void refuse(const char* what, int64_t limit, double need, const char* advice) {
  constexpr double kGib = 1 << 30;
  throw Error(fmt::format("{} of at most {:.2f} GiB, got {:.2f} GiB; {}",
                          what,
                          static_cast<double>(limit) / kGib,
                          need / kGib,
                          advice));
}

// Prints the summary of a start. Throws Error if memory or disk is too small.
int dry_run(const ResolvedRun& run, const std::string& resume, const LaunchEnv& env, bool json) {
  const auto summary = preview_run(posix_io(), run, resume, env.world_size, env.local_size);
  if (env.rank == 0 && json) print_json(summary_json(summary));
  if (env.rank == 0 && !json) print_summary(summary);
  const auto& place = summary.place;
  constexpr auto kSmaller = "lower train.batch_size or set train.checkpoint_activations: full";
  if (!summary.fits_memory()) {
    refuse("train: expected memory", place.memory_bytes, summary.host_memory_bytes, kSmaller);
  }
  if (!summary.fits_device()) {
    refuse("train: expected GPU memory",
           place.device_memory_bytes,
           summary.device_memory_bytes,
           kSmaller);
  }
  if (!summary.fits_disk()) {
    refuse("run_dir: expected checkpoints",
           place.free_disk_bytes,
           summary.checkpoint_disk_bytes,
           "lower train.keep_checkpoints or take another disk");
  }
  return 0;
}

// Opens the device of a run; --print-config needs no GPU. Resolves `auto`.
c10::Device open_config_device(RunConfig& config, int64_t local_rank, bool runs) {
  if (config.device == DeviceKind::kCpu || (config.device == DeviceKind::kCuda && !runs)) {
    return c10::kCPU;
  }
  const auto device = open_device(config.device == DeviceKind::kCuda ? "cuda" : "auto", local_rank);
  config.device = device.is_cpu() ? DeviceKind::kCpu : DeviceKind::kCuda;
  return device;
}

// A peak is of one device: GPUs are measured at each start.
std::shared_ptr<MatrixPeak> open_matrix_peak(const RunConfig& config, c10::Device device) {
  const auto dtype =
      config.train.compute_dtype == ComputeDtype::kBfloat16 ? at::kBFloat16 : at::kFloat;
  if (!device.is_cpu()) return std::make_shared<MatrixPeak>("", "");
  return std::make_shared<MatrixPeak>(matrix_peak_path(), matrix_peak_key(dtype, config.threads));
}

}  // namespace

int run_train(const TrainCommand& options) {
  RunConfig config;
  const auto describe_config = [&](ConfigVisitor& visitor) { describe(visitor, config); };
  if (options.list_keys) {
    print_out("{}", config_to_markdown(describe_config));
    return 0;
  }
  if (options.config.empty()) throw Error("train: expected a config file, got none; see --help");
  auto overrides = take_overrides("train", options.overrides);
  if (!options.device.empty()) overrides.push_back("device=" + options.device);
  const auto given = read_run_config(options.config, overrides, config);
  const bool runs = !options.print_config && !options.dry_run;
  if (!runs) uninstall_stop_signal();
  const auto env = read_launch_env(process_environment);
  if (env.rank == 0) log_notes(given);
  c10::Device device = c10::kCPU;
  ResolvedRun resolved;
  watch_start(env, config.distributed, "opening the device and the data", [&] {
    device = open_config_device(config, env.local_rank, !options.print_config);
    config.threads = threads_of_rank(config.threads, env);
    set_threads(static_cast<int>(config.threads));
    const auto source = find_init_source(posix_io(), config, options.resume);
    if (source) {
      const auto inherited = inherit_model(config, given, *source);
      if (env.rank == 0) log_inherited(inherited, *source);
    }
    check_used_keys(config, given);
    resolved = resolve_run(config, source);
  });
  config = resolved.config;
  for (const auto& note : env.rank == 0 ? resolved.notes : std::vector<std::string>()) {
    log_info(note);
  }
  const auto yaml = config_to_yaml(describe_config);
  if (options.print_config) {
    print_out("{}", yaml);
    return 0;
  }
  if (options.dry_run) return dry_run(resolved, options.resume, env, options.json);
  resolved = {};  // the trainer opens the data itself
  if (env.world_size == 1 && stop_requested()) {
    log_info("stopped before the first step; the same command starts again");
    TrainResult result;
    result.stopped = true;
    const auto checkpoints = list_checkpoints(config.run_dir);
    if (!checkpoints.empty()) result.checkpoint = checkpoints.front();
    if (options.json) print_result(result);
    return kExitStopped;
  }
  caching_allocator::install();
  const auto ranks = join_job(env, config.distributed, device);
  TrainMachine machine;
  machine.peak = open_matrix_peak(config, device);
  // The selected device of its kind.
  Trainer trainer(posix_io(), config, options.resume, c10::Device(device.type()), ranks, machine);
  const auto summary = trainer.summary();
  if (ranks->rank() == 0) print_run_header(summary);
  const auto result = trainer.run();
  ranks->barrier("leaving together");
  if (ranks->rank() == 0) print_run_footer(summary, result);
  if (options.json && ranks->rank() == 0) print_result(result);
  return result.stopped ? kExitStopped : 0;
}

}  // namespace dsmoe
