#include "train/trainer.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include <fmt/format.h>

#include <chrono>
#include <cstring>
#include <mutex>

#include "common/device_module.h"
#include "common/log.h"
#include "common/process_setup.h"
#include "common/random_seed.h"
#include "common/stop_signal.h"
#include "eval/perplexity.h"
#include "model/flops.h"
#include "train/lr_schedule.h"
#include "train/replica_check.h"

namespace dsmoe {
namespace {

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Ranks may have scored different numbers of windows, or none.
void add_usage(ExpertUsage& usage, RankGroup& ranks) {
  if (ranks.world_size() == 1) return;
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
  const bool was_finished = state_.step >= config_.train.steps;
  if (is_validation_due()) validate();
  interval_ = {.first_step = state_.step};
  while (step()) {
  }
  const auto result = finish();
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

bool Trainer::step() {
  if (state_.step >= config_.train.steps || is_stopping()) return false;
  checkpoints_.check();  // stops the run if a save has failed
  train_step();
  const auto pause = Clock::now();
  if (is_validation_due()) validate();
  if (is_due(state_.step, config_.train.save_every, config_.train.steps)) save();
  interval_.pause_seconds += seconds_since(pause);
  return true;
}

TrainResult Trainer::finish() {
  result_.stopped = state_.step < config_.train.steps;
  if (result_.stopped) {
    if (metrics_) metrics_->add_stop(state_.step, "a signal; the state is saved");
    save();
  }
  result_.checkpoint = checkpoints_.finish();
  result_.step = state_.step;
  result_.tokens = state_.tokens;
  if (result_.last && result_.last->step != state_.step) result_.last.reset();
  if (!result_.last && metrics_) {
    result_.last = read_step_metrics(io_, config_.run_dir, state_.step);
  }
  if (!result_.validation_loss && state_.validated_step > 0) {
    result_.validation_loss = state_.validation_loss;
    if (metrics_) {
      result_.validations = read_validation_scores(io_, config_.run_dir, state_.validated_step);
    }
  }
  result_.best_step = state_.best_step;
  result_.best_loss = state_.best_loss;
  if (metrics_) result_.seconds = metrics_->seconds();
  return result_;
}

// One optimizer step over `accumulation` micro-batches. A step with a dropped update counts as
// one: data and schedule advance, weights and moments do not change.
void Trainer::train_step() {
  const int64_t step = state_.step + 1;
  trace_.begin_step();
  ranks_->begin_step(step);
  seed_dropout();
  const auto batches = load_batches();

  StepResult result;
  const auto context = step_.begin(batches);
  for (const auto& batch : batches) {
    const auto micro_batch = step_.forward_backward(batch, context, &batch == &batches.back());
    watch_.add(micro_batch.output, is_logged(step));
    accumulate(result.loss, micro_batch.loss);
  }
  step_.reduce(result, watch_.step_numbers());
  is_stopping_ = result.stop;

  result.learning_rate = learning_rate(config_.train.schedule_of_run(), state_.step);
  result.gradient_norm = step_.prepare_clipping();
  if (passes_guard(result, batches)) step_.update(result.learning_rate);
  step_.end(step);

  count_step();
  trace_.end_step(step);
  if (is_check_due()) check_replicas(*ranks_, named_parameters(*model_), step);
  report(result);
}

// Derived from the step, so that ranks draw different numbers and a resume needs no random state of
// other ranks or devices. One rank on the CPU continues from the state of its checkpoint.
void Trainer::seed_dropout() {
  if (ranks_->world_size() == 1 && model_->device().is_cpu()) return;
  const auto index = static_cast<uint64_t>(state_.step * ranks_->world_size() + ranks_->rank());
  auto generator = at::globalContext().defaultGenerator(model_->device());
  const std::lock_guard<std::mutex> lock(generator.mutex());
  generator.set_current_seed(derive_seed(static_cast<uint64_t>(config_.seed), "dropout", index));
}

// This rank's share of accumulation x [batch, seq].
std::vector<Batch> Trainer::load_batches() {
  std::vector<Batch> batches;
  const int64_t n_batches = share_micro_batches(config_.train.accumulation, *ranks_);
  for (int64_t i = 0; i < n_batches; ++i) {
    auto& batch = batches.emplace_back(loader_.next());
    for (auto* tensor : {&batch.tokens, &batch.targets, &batch.document_positions}) {
      if (!tensor->defined()) continue;
      *tensor = tensor->to(model_->device(),
                           /*non_blocking=*/model_->device().is_cuda());  // itself on the CPU
    }
  }
  return batches;
}

// False: the update of this step is dropped.
bool Trainer::passes_guard(const StepResult& result, const std::vector<Batch>& batches) {
  const int64_t step = state_.step + 1;
  StepVerdict verdict;
  try {
    verdict = bad_steps_.judge(step, result, batches);
  } catch (const RunError& error) {
    if (metrics_) metrics_->add_stop(step, error.what());
    throw;
  }
  if (!verdict.event.empty()) note(step, verdict.event, verdict.reason);
  bad_steps_.check_skips();
  return verdict.is_applied;
}

void Trainer::count_step() {
  state_.step += 1;
  ranks_->finish_step(state_.step);
  state_.position = loader_.position();
  state_.tokens += tokens_per_step();
}

void Trainer::report(const StepResult& result) {
  for (const auto& alarm : watch_.end_step()) note(state_.step, "alarm", alarm);
  if (!is_logged(state_.step) && !is_stopping()) return;
  result_.last = measure(result);
  if (metrics_) metrics_->add(*result_.last);
  interval_ = {.first_step = state_.step};
}

StepMetrics Trainer::measure(const StepResult& result) {
  const double seconds = seconds_since(interval_.start) - interval_.pause_seconds;
  const int64_t tokens = (state_.step - interval_.first_step) * tokens_per_step();
  StepMetrics metrics;
  metrics.step = state_.step;
  metrics.tokens = state_.tokens;
  metrics.loss = result.loss.total.item<double>();
  metrics.loss_terms = loss_terms(result.loss, settings_.loss);
  metrics.learning_rate = result.learning_rate;
  metrics.gradient_norm = result.gradient_norm;
  metrics.tokens_per_second = static_cast<double>(tokens) / std::max(seconds, 1e-9);
  metrics.peak_memory_bytes = peak_memory_bytes();
  if (auto* module = opened_device_module(); module != nullptr && model_->device().is_cuda()) {
    metrics.device_memory_bytes = module->peak_memory_bytes();
    module->reset_peak_memory();
  }
  metrics.skipped_steps = bad_steps_.history().skipped_steps;
  metrics.routing = watch_.take_stats();
  metrics.flops_per_second = metrics.tokens_per_second * flops_per_token(metrics.routing);
  if (machine_.peak) {
    const auto n_ranks = static_cast<double>(ranks_->world_size());
    metrics.mfu = machine_.peak->share_of(metrics.flops_per_second / n_ranks);
  }
  return metrics;
}

// Sparse training computes the selected experts only.
double Trainer::flops_per_token(const RoutingStats& routing) const {
  auto active = all_experts(config_.model);
  const auto count_selected = [&](std::vector<double>& experts,
                                  const std::vector<LayerRoutingStats>& layers,
                                  RoutingPolicy LayerRouting::*policy) {
    for (size_t i = 0; i < std::min(experts.size(), layers.size()); ++i) {
      if ((settings_.plan.layer(i).*policy).execution != Execution::kSparse) continue;
      experts[i] = layers[i].active_experts;
    }
  };
  count_selected(active.moe, routing.moe, &LayerRouting::moe);
  count_selected(active.moa, routing.moa, &LayerRouting::moa);
  return train_flops_per_token(config_.model, active, config_.seq_len());
}

int64_t Trainer::tokens_per_step() const {
  return config_.train.accumulation * config_.train.batch_size * config_.seq_len();
}

bool Trainer::is_logged(int64_t step) const {
  return is_due(step, config_.train.log_every, config_.train.steps);
}

bool Trainer::is_stopping() const {
  return ranks_->world_size() == 1 ? stop_requested() : is_stopping_;
}

bool Trainer::is_check_due() const {
  const int64_t every = config_.distributed.check_every;
  return ranks_->world_size() > 1 && every > 0 && state_.step % every == 0;
}

bool Trainer::is_validation_due() const {
  return config_.train.validate_every > 0 && !validation_.sequences.empty() && state_.step > 0 &&
         state_.validated_step != state_.step &&
         is_due(state_.step, config_.train.validate_every, config_.train.steps);
}

// Under each policy of the run; the first one's loss is the run's.
void Trainer::validate() {
  std::vector<PolicyValidation> validations;
  for (const auto& policy : policies_) {
    auto validation = validate_under(policy);
    if (!validation) return;
    validations.push_back(std::move(*validation));
  }
  state_.validated_step = state_.step;
  state_.validation_loss = validations.front().score.loss;
  result_.validation_loss = state_.validation_loss;
  result_.validations.clear();
  for (const auto& validation : validations) result_.validations.push_back(validation.score);
  if (metrics_) metrics_->add_validation(state_.step, validations);
}

// None: a rank received a signal; the next start repeats this step's validation.
std::optional<PolicyValidation> Trainer::validate_under(const ValidationPolicy& policy) {
  PerplexityOptions options;
  options.window = config_.seq_len();
  options.batch = config_.train.batch_size;
  options.plan = policy.plan;
  options.compute_dtype = settings_.forward.compute_dtype;
  // The one after the last step runs to its end: no later start would save its result.
  if (state_.step < config_.train.steps) options.stop = stop_requested;
  options.part = ranks_->rank();
  options.n_parts = ranks_->world_size();
  auto measured = evaluate_perplexity(model_, validation_, options);
  const auto sums = at::tensor({measured.nats_total,
                                static_cast<double>(measured.tokens_scored),
                                measured.complete ? 0.0 : 1.0},
                               at::kDouble);
  ranks_->all_reduce_sum(sums, "adding the validation losses");
  if (sums[2].item<double>() > 0) {
    is_stopping_ = true;
    return std::nullopt;
  }
  measured.nats_total = sums[0].item<double>();
  measured.tokens_scored = sums[1].item<int64_t>();
  add_usage(measured.usage, *ranks_);
  ValidationScore score{.policy = policy.name, .loss = measured.nats_per_token()};
  if (measured.n_bytes > 0) score.bits_per_byte = measured.bits_per_byte();
  score.active_parameters = active_parameters(config_.model, measured.usage.active_experts());
  score.active_share = score.active_parameters /
                       static_cast<double>(count_parameters(config_.model).non_embedding());
  return PolicyValidation{.score = std::move(score), .result = std::move(measured)};
}

void Trainer::save() {
  state_.guard = bad_steps_.history();
  checkpoints_.save(state_);
}

void Trainer::note(int64_t step, const std::string& event, const std::string& text) {
  if (metrics_) metrics_->add_event(step, event, text);
}

}  // namespace dsmoe
