#include "train/train_bench.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <map>
#include <memory>

#include "common/device_module.h"
#include "common/error.h"
#include "common/io.h"
#include "common/log.h"
#include "common/process_setup.h"
#include "common/random_seed.h"
#include "common/standard_output.h"
#include "model/flops.h"
#include "model/named_tensors.h"
#include "model/parameter_count.h"
#include "train/caching_allocator.h"
#include "train/flops.h"
#include "train/lr_schedule.h"
#include "train/sharded_optimizer.h"

namespace dsmoe {
namespace {

constexpr int64_t kMemorySteps = 3;  // the second is the first with optimizer state

Transformer make_model(const RunConfig& config) {
  Transformer model(config.model);
  init_weights(model, derive_seed(static_cast<uint64_t>(config.seed), "weights"));
  model->to(config.device == DeviceKind::kCuda ? at::kCUDA : at::kCPU);
  model->train();
  return model;
}

[[noreturn]] void report_memory(const RunConfig& config, int pipe_end) {
  StepMemory memory;
  bool is_measured = false;
  try {
    RankGroup one_rank;
    memory = measure_step_memory(config, one_rank);
    is_measured = true;
  } catch (const std::exception& error) {
    print_note(fmt::format("{}\n", error.what()));
  }
  is_measured = is_measured && posix_io().write(pipe_end, &memory, sizeof memory) == sizeof memory;
  // Skips the destructors of objects of the parent.
  _exit(is_measured ? 0 : 1);
}

}  // namespace

RunConfig resolve_bench_config(RunConfig config) {
  config.model.validate();
  config.train.epochs = 0;  // no data is read here
  resolve_units(config, std::nullopt);
  if (config.model.vocab_size == 0) {
    throw Error(
        "model.vocab_size: expected a size, as no data is read here, got 0; pass "
        "--model.vocab_size=257 for bytes");
  }
  if (config.seq_len() > config.model.max_seq_len) {
    throw Error(fmt::format("data.seq_len = {} is above model.max_seq_len = {}",
                            config.data.seq_len,
                            config.model.max_seq_len));
  }
  config.train.compute_dtype = resolve_compute_dtype(config.train.compute_dtype, config.device);
  return config;
}

at::Tensor bench_tokens(const RunConfig& config, int64_t index) {
  const int64_t batch = config.train.batch_size;
  const int64_t length = config.seq_len() + 1;
  auto tokens = at::empty({batch, length}, at::kLong);
  auto* out = tokens.data_ptr<int64_t>();
  const auto first = static_cast<uint64_t>(index * batch * length);
  const auto vocab_size = static_cast<uint64_t>(config.model.vocab_size);
  for (int64_t i = 0; i < batch * length; ++i) {
    out[i] = static_cast<int64_t>((mix_bits(first + static_cast<uint64_t>(i)) >> 33) % vocab_size);
  }
  return tokens;
}

TrainBench::TrainBench(const RunConfig& config, RankGroup& ranks)
    : config_(config),
      model_(make_model(config)),
      settings_(step_settings(config)),
      shards_(make_shards(model_, config_, ranks)),
      optimizer_(make_optimizer(model_, shards_.get(), config_, ranks)),
      ranks_(ranks),
      step_(model_, optimizer_, settings_, ranks, shards_.get()) {
  share_micro_batches(config.train.accumulation, ranks);
  step_.join_ranks(config.distributed);
}

int64_t TrainBench::tokens_per_step() const {
  return config_.train.accumulation * config_.train.batch_size * config_.seq_len();
}

std::vector<Batch> TrainBench::next_batches() {
  std::vector<Batch> batches;
  const int64_t n_own = share_micro_batches(config_.train.accumulation, ranks_);
  for (int64_t i = 0; i < n_own; ++i) {
    const int64_t index = steps_ * config_.train.accumulation + ranks_.rank() * n_own + i;
    const auto tokens = bench_tokens(config_, index);  // [batch, seq + 1]
    const auto on_device = tokens.to(model_->device());
    Batch batch{.tokens = on_device.narrow(1, 0, config_.seq_len()).contiguous(),
                .targets = on_device.narrow(1, 1, config_.seq_len()).contiguous(),
                .positions = {}};
    for (int64_t row = 0; row < config_.train.batch_size; ++row) {
      batch.positions.push_back(index * config_.train.batch_size + row);
    }
    batches.push_back(std::move(batch));
  }
  return batches;
}

StepTimes TrainBench::step() {
  const double cpu_before = cpu_seconds();
  StepTimer timer;
  timer.start();
  const auto batches = next_batches();
  timer.lap(StepPart::kData);
  const double rate = learning_rate(config_.train.schedule_of_run(), steps_);
  const auto result = step_.run(batches, steps_ + 1, rate, &timer);
  steps_ += 1;
  last_loss_ = result.loss.total.item<double>();
  timer.lap(StepPart::kOther);
  auto times = timer.times();
  times.cpu = cpu_seconds() - cpu_before;
  return times;
}

double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : 0.5 * (values[middle - 1] + values[middle]);
}

double TrainBenchResult::median_of(const std::function<double(const StepTimes&)>& value) const {
  std::vector<double> values;
  for (const auto& step : steps) values.push_back(value(step));
  return median(std::move(values));
}

double TrainBenchResult::mfu() const {
  const double flops = flops_per_token * static_cast<double>(tokens_per_step);
  return flops / median_of(&StepTimes::total) / (peak_flops * static_cast<double>(n_ranks));
}

double paired_ratio(const TrainBenchResult& result,
                    const TrainBenchResult& first,
                    const std::function<double(const StepTimes&)>& value) {
  std::vector<double> ratios;
  for (size_t i = 0; i < std::min(result.steps.size(), first.steps.size()); ++i) {
    ratios.push_back(value(result.steps[i]) / value(first.steps[i]));
  }
  return median(std::move(ratios));
}

std::vector<TrainBenchResult> run_train_bench(const std::vector<RunConfig>& configs,
                                              const TrainBenchOptions& options,
                                              RankGroup& ranks) {
  std::vector<std::unique_ptr<TrainBench>> benches;
  std::vector<TrainBenchResult> results(configs.size());
  std::map<at::ScalarType, double> peaks;
  for (size_t i = 0; i < configs.size(); ++i) {
    const auto& bench = benches.emplace_back(std::make_unique<TrainBench>(configs[i], ranks));
    results[i].n_ranks = ranks.world_size();
    results[i].parameters = count_parameters(configs[i].model).total();
    results[i].tokens_per_step = bench->tokens_per_step();
    results[i].flops_per_token = train_flops_per_token(configs[i].model, configs[i].seq_len());
    peaks[bench->compute_dtype()] = 0;
  }
  const auto device = benches.front()->device();
  auto* module = device.is_cpu() ? nullptr : opened_device_module();
  const auto measure_peaks = [&] {
    use_fast_float32_products(true);  // the peak is that of the faster library
    for (auto& [dtype, peak] : peaks) peak = std::max(peak, measure_matrix_speed(dtype, device));
  };
  for (int64_t round = 0; round < options.warmup + options.repetitions; ++round) {
    measure_peaks();
    for (size_t i = 0; i < benches.size(); ++i) {
      if (module != nullptr) module->reset_peak_memory();
      const auto times = benches[i]->step();
      if (module != nullptr) results[i].peak_memory_bytes = module->peak_memory_bytes();
      results[i].has_parts = device.is_cpu();
      results[i].losses.push_back(benches[i]->last_loss());
      if (round >= options.warmup) results[i].steps.push_back(times);
    }
  }
  measure_peaks();
  for (size_t i = 0; i < benches.size(); ++i) {
    results[i].peak_flops = peaks[benches[i]->compute_dtype()];
  }
  return results;
}

StepMemory measure_step_memory(const RunConfig& config, RankGroup& ranks) {
  caching_allocator::release_waiting();
  caching_allocator::reset_peaks();
  const auto before = caching_allocator::usage();
  const int64_t resident_before = resident_memory_bytes();
  TrainBench bench(config, ranks);
  for (int64_t i = 0; i < kMemorySteps; ++i) bench.step();
  const auto after = caching_allocator::usage();
  return {.resident = peak_memory_bytes() - resident_before,
          .held = after.peak_held - before.held,
          .tensors = after.peak_tensors - before.tensors};
}

StepMemory measure_step_memory_apart(const RunConfig& config) {
  int ends[2];
  if (pipe(ends) != 0) throw RunError("bench: cannot open a pipe");
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) throw RunError("bench: cannot start a process");
  if (child == 0) report_memory(config, ends[1]);
  close(ends[1]);
  StepMemory memory;
  const bool is_read = ::read(ends[0], &memory, sizeof memory) == sizeof memory;
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (!is_read) {
    throw RunError("bench: the process that measures memory failed; --no-memory skips it");
  }
  return memory;
}

}  // namespace dsmoe
