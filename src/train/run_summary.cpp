#include "train/run_summary.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/cpu_features.h"
#include "common/device_module.h"
#include "common/error.h"
#include "common/machine.h"
#include "common/machine_resources.h"
#include "model/planned_experts.h"

namespace dsmoe {
namespace {

constexpr double kBytesPerParameter = 12;  // float32: the weight and two moments

// Without repetitions, in order.
std::vector<PolicyParameters> policy_parameters(const ModelConfig& model,
                                                const std::vector<std::string>& further) {
  std::vector<std::string> names{"all", model.training_policy};
  names.insert(names.end(), further.begin(), further.end());
  std::vector<PolicyParameters> result;
  for (const auto& name : names) {
    const auto plan = parse_routing_plan(name);
    const auto is_same = [&](const PolicyParameters& other) { return other.policy == name; };
    if (std::any_of(result.begin(), result.end(), is_same)) continue;
    const auto active = fixed_experts(model, plan);
    auto& row = result.emplace_back(PolicyParameters{.policy = name, .active = {}});
    if (active) row.active = active_parameters(model, *active);
  }
  return result;
}

// A corpus of share w gets w of the training sequences, however large it is.
void add_data(RunSummary& summary, const RunConfig& config, const TrainingData& data) {
  const auto& sources = data.sources();
  double weights = 0;
  for (const auto& source : sources) weights += source.weight;
  for (size_t i = 0; i < sources.size(); ++i) {
    const auto& [source, weight] = sources[i];
    const double share = weight / weights;
    const auto tokens = static_cast<double>(source->n_tokens());
    summary.data_tokens += source->n_tokens();
    summary.corpora.push_back(
        {.path = config.data.train.at(i),
         .tokens = source->n_tokens(),
         .documents = source->n_documents(),
         .epochs = share * static_cast<double>(summary.total_tokens) / tokens});
  }
  summary.epochs =
      static_cast<double>(summary.total_tokens) / static_cast<double>(summary.data_tokens);
}

// A save writes before older checkpoints go.
int64_t most_checkpoints(const TrainConfig& config) {
  const int64_t n_saves =
      config.save_every > 0 ? (config.steps + config.save_every - 1) / config.save_every : 1;
  const int64_t n_recent = config.keep_checkpoints + 1 + (config.keep_best ? 1 : 0);
  const int64_t n_kept_on =
      config.keep_every > 0 && config.save_every > 0 ? config.steps / config.keep_every : 0;
  return std::min(n_saves, n_recent + n_kept_on);
}

void add_needs(RunSummary& summary, const RunConfig& config) {
  const auto ranks_here = static_cast<double>(summary.place.ranks_of_host);
  summary.memory = training_memory(config, summary.ranks);
  const bool on_cpu = config.device == DeviceKind::kCpu;
  // The first rank alone saves.
  summary.host_memory_bytes =
      (on_cpu ? ranks_here * summary.memory.peak : 0) + summary.memory.snapshot;
  summary.device_memory_bytes = on_cpu ? 0 : summary.memory.peak;
  summary.checkpoint_bytes = kBytesPerParameter * static_cast<double>(summary.parameters.total());
  summary.kept_checkpoints = most_checkpoints(config.train);
  const int64_t n_new = std::max<int64_t>(summary.kept_checkpoints - summary.start.own_checkpoints,
                                          summary.start.step < summary.steps ? 1 : 0);
  summary.checkpoint_disk_bytes = static_cast<double>(n_new) * summary.checkpoint_bytes;
}

}  // namespace

bool RunSummary::fits_memory() const {
  return place.memory_bytes == 0 || host_memory_bytes <= static_cast<double>(place.memory_bytes);
}

bool RunSummary::fits_device() const {
  return place.device_memory_bytes == 0 ||
         device_memory_bytes <= static_cast<double>(place.device_memory_bytes);
}

bool RunSummary::fits_disk() const {
  return place.free_disk_bytes == 0 ||
         checkpoint_disk_bytes <= static_cast<double>(place.free_disk_bytes);
}

RunPlace this_place(const std::string& run_dir, int64_t world_size, int64_t ranks_of_host) {
  auto* device = opened_device_module();
  return {.world_size = world_size,
          .ranks_of_host = ranks_of_host,
          .memory_bytes = machine_memory_bytes(),
          .available_memory_bytes = available_memory_bytes(),
          .free_disk_bytes = free_disk_bytes(run_dir),
          .device_memory_bytes = device == nullptr ? 0 : device->total_memory_bytes()};
}

RunSummary summarise_run(const RunConfig& config,
                         const TrainingData& data,
                         const RunPlace& place,
                         const StartPoint& start,
                         const std::vector<std::string>& policies) {
  if (config.train.accumulation % place.world_size != 0) {
    throw Error(fmt::format("train.accumulation: expected a multiple of the {} ranks, got {}",
                            place.world_size,
                            config.train.accumulation));
  }
  RunSummary summary;
  summary.run_dir = config.run_dir;
  summary.init_from = config.train.init_from;
  summary.start = start;
  summary.parameters = count_parameters(config.model);
  summary.policies = policy_parameters(config.model, policies);
  summary.validation = config.data.validation;
  summary.context = config.seq_len();
  summary.batch_size = config.train.batch_size;
  summary.accumulation = config.train.accumulation;
  summary.tokens_per_step = config.train.batch_size * config.train.accumulation * config.seq_len();
  summary.steps = config.train.steps;
  summary.warmup_steps = config.train.schedule.warmup_steps;
  summary.total_tokens = summary.steps * summary.tokens_per_step;
  summary.device = config.device == DeviceKind::kCpu ? "cpu" : "cuda";
  summary.dtype = config.train.compute_dtype == ComputeDtype::kBfloat16 ? "bfloat16" : "float32";
  summary.isa = option_of(cpu_isa());
  summary.ranks = place.world_size;
  summary.threads = config.threads;
  summary.place = place;
  add_data(summary, config, data);
  add_needs(summary, config);
  return summary;
}

}  // namespace dsmoe
