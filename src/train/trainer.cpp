#include "train/trainer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include <fmt/format.h>

#include <chrono>
#include <cstring>

#include "common/device_module.h"
#include "common/log.h"
#include "common/process_setup.h"
#include "common/stop_signal.h"
#include "eval/perplexity.h"
#include "train/lr_schedule.h"
#include "train/replica_check.h"

namespace dsmoe {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// Ranks may have scored unlike numbers of windows, or none.
void add_usage(ExpertUsage& usage, RankGroup& ranks) {
  if (ranks.is_alone()) return;
  const auto mine = usage.numbers();
  const std::string bytes(reinterpret_cast<const char*>(mine.data()), mine.size() * sizeof(double));
  const auto all = ranks.all_gather(bytes, "adding the use of experts");
  for (size_t rank = 0; rank < all.size(); ++rank) {
    if (rank == static_cast<size_t>(ranks.rank())) continue;
    std::vector<double> numbers(all[rank].size() / sizeof(double));
    std::memcpy(numbers.data(), all[rank].data(), all[rank].size());
    usage.add(numbers);
  }
}

bool is_due(int64_t step, int64_t every, int64_t last) {
  return (every > 0 && step % every == 0) || step == last;
}

}  // namespace

TrainResult Trainer::run() {
  TrainResult result;
  const bool was_finished = state_.step >= config_.train.steps;
  // A validation that a stop cut short is made up for.
  if (is_validation_due()) validate(result);
  auto interval_start = Clock::now();
  int64_t interval_first = state_.step;
  double other_seconds = 0;  // validation and saving inside the interval
  while (state_.step < config_.train.steps && !is_stopping()) {
    saver_.check();  // a save that failed meanwhile stops the run here
    trace_.begin_step();
    const auto step = train_step();
    trace_.end_step(state_.step);
    for (const auto& alarm : watch_.end_step()) note(state_.step, "alarm", alarm);
    if (is_check_due()) check_replicas(*ranks_, named_parameters(*model_), state_.step);
    if (is_due(state_.step, config_.train.log_every, config_.train.steps) || is_stopping()) {
      result.last = measure(
          step, seconds_since(interval_start) - other_seconds, state_.step - interval_first);
      if (metrics_) metrics_->add(*result.last);
      interval_start = Clock::now();
      interval_first = state_.step;
      other_seconds = 0;
    }
    const auto pause = Clock::now();
    if (is_validation_due()) validate(result);
    if (is_due(state_.step, config_.train.save_every, config_.train.steps)) save();
    other_seconds += seconds_since(pause);
    if (hooks_.on_step_end) hooks_.on_step_end(state_.step - 1, named_parameters(*model_));
  }
  result.stopped = state_.step < config_.train.steps;
  if (result.stopped) save();
  saver_.finish();
  result.checkpoint = saver_.newest().empty() ? resumed_from_ : saver_.newest();
  add_last_numbers(result);
  if (was_finished && metrics_) {
    log_info(fmt::format(
        "the run is finished: it has {} steps, train.steps = {}{}; raise train.steps to "
        "train on",
        state_.step,
        config_.train.steps,
        result.last ? fmt::format(", its last loss is {:.4f}", result.last->loss) : ""));
  }
  return result;
}

// Those of the step that the run is at, from this process or an earlier one.
void Trainer::add_last_numbers(TrainResult& result) {
  result.step = state_.step;
  result.tokens = state_.tokens;
  if (result.last && result.last->step != state_.step) result.last.reset();
  if (!result.last && metrics_) result.last = read_step_metrics(io_, config_.run_dir, state_.step);
  if (!result.validation_loss && state_.validated_step > 0) {
    result.validation_loss = state_.validation_loss;
  }
}

bool Trainer::is_stopping() const { return ranks_->is_alone() ? stop_requested() : is_stopping_; }

bool Trainer::is_check_due() const {
  const int64_t every = config_.distributed.check_every;
  return !ranks_->is_alone() && every > 0 && state_.step % every == 0;
}

// One optimizer step over `accumulation` micro-batches; TrainStep::run has its arithmetic. A step
// whose update is dropped counts as one: data and schedule move on, weights and moments do not.
StepResult Trainer::train_step() {
  ranks_->begin_step(state_.step + 1);
  if (!ranks_->is_alone() || !model_->device().is_cpu()) seed_dropout();
  const auto batches = next_batches();  // this rank's share of accumulation x [batch, seq]
  const double rate = learning_rate(config_.train.schedule_of_run(), state_.step);
  const auto result = step_.run(batches, state_.step + 1, rate);
  is_stopping_ = result.stop;
  state_.step += 1;
  ranks_->finish_step(state_.step);
  state_.position = loader_.position();
  state_.tokens += config_.train.accumulation * config_.train.batch_size * config_.seq_len();
  return result;
}

std::vector<Batch> Trainer::next_batches() {
  std::vector<Batch> batches;
  for (int64_t i = 0; i < n_micro_batches(); ++i) {
    auto& batch = batches.emplace_back(loader_.next());
    for (auto* tensor : {&batch.tokens, &batch.targets, &batch.document_positions}) {
      if (!tensor->defined()) continue;
      *tensor = tensor->to(model_->device(),
                           /*non_blocking=*/model_->device().is_cuda());  // itself on the CPU
    }
  }
  return batches;
}

StepMetrics Trainer::measure(const StepResult& result, double seconds, int64_t steps) {
  const double tokens = static_cast<double>(steps * config_.train.accumulation *
                                            config_.train.batch_size * config_.seq_len());
  StepMetrics metrics;
  metrics.step = state_.step;
  metrics.tokens = state_.tokens;
  metrics.loss = result.loss.total.item<double>();
  metrics.loss_terms = loss_terms(result.loss, settings_.loss);
  metrics.learning_rate = result.learning_rate;
  metrics.gradient_norm = result.gradient_norm;
  metrics.tokens_per_second = tokens / std::max(seconds, 1e-9);
  metrics.mfu = metrics.tokens_per_second * flops_per_token_ /
                (peak_flops_ * static_cast<double>(ranks_->size()));
  metrics.peak_memory_bytes = peak_memory_bytes();
  if (auto* module = opened_device_module(); module != nullptr && model_->device().is_cuda()) {
    metrics.device_memory_bytes = module->peak_memory_bytes();
    module->reset_peak_memory();
  }
  metrics.skipped_steps = guard_.history().skipped_steps;
  metrics.routing = watch_.take_stats();
  return metrics;
}

bool Trainer::is_validation_due() const {
  return config_.train.validate_every > 0 && !validation_.sequences.empty() && state_.step > 0 &&
         state_.validated_step != state_.step &&
         is_due(state_.step, config_.train.validate_every, config_.train.steps);
}

void Trainer::validate(TrainResult& result) {
  PerplexityOptions options;
  options.window = config_.seq_len();
  options.batch = config_.train.batch_size;
  options.plan = settings_.plan;
  options.compute_dtype = settings_.forward.compute_dtype;
  // The one after the last step is finished: no later start would save what it came to.
  if (state_.step < config_.train.steps) options.stop = stop_requested;
  options.part = ranks_->rank();
  options.n_parts = ranks_->size();
  auto measured = evaluate_perplexity(model_, validation_, options);
  const auto sums = at::tensor({measured.nats_total,
                                static_cast<double>(measured.tokens_scored),
                                measured.complete ? 0.0 : 1.0},
                               at::kDouble);
  ranks_->all_reduce_sum(sums, "adding the validation losses");
  if (sums[2].item<double>() > 0) {
    is_stopping_ = true;  // a rank was asked to; the next start makes up for this validation
    return;
  }
  state_.validated_step = state_.step;
  measured.nats_total = sums[0].item<double>();
  measured.tokens_scored = sums[1].item<int64_t>();
  add_usage(measured.usage, *ranks_);
  state_.validation_loss = measured.nats_per_token();
  result.validation_loss = state_.validation_loss;
  if (metrics_) metrics_->add_validation(state_.step, measured);
}

}  // namespace dsmoe
