#include "train/train_step.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <cmath>
#include <string>
#include <utility>

#include "common/cpu_features.h"
#include "common/error.h"
#include "common/log.h"
#include "common/stop_signal.h"
#include "train/random_state.h"
#include "train/sharded_optimizer.h"
#include "train/step_memory.h"

namespace dsmoe {
namespace {

// Blocks that so many steps did not use are returned: those of a validation, not those of a step.
constexpr int64_t kTrimSteps = 16;

}  // namespace

ComputeDtype resolve_compute_dtype(ComputeDtype dtype, DeviceKind device) {
  const bool fast_bfloat16 = device != DeviceKind::kCpu || has_fast_bfloat16();
  if (dtype == ComputeDtype::kAuto) {
    return fast_bfloat16 ? ComputeDtype::kBfloat16 : ComputeDtype::kFloat32;
  }
  if (dtype == ComputeDtype::kBfloat16 && !fast_bfloat16) {
    log_warning(
        "compute_dtype bfloat16: this CPU has no AVX512-BF16; float32 is many times faster");
  }
  return dtype;
}

bool use_fast_float32_products(bool fast) {
  const bool onednn = fast && !has_amx();
  at::globalContext().setFloat32Precision(
      at::Float32Backend::MKLDNN,
      at::Float32Op::MATMUL,
      onednn ? at::Float32Precision::BF16 : at::Float32Precision::IEEE);
  return onednn;
}

StepSettings step_settings(const RunConfig& config) {
  StepSettings settings{.plan = training_plan(config.model),
                        .forward = {},
                        .loss = config.train.loss,
                        .clip_norm = config.train.optimizer.clip_norm,
                        .fast_float32 = config.train.fast_float32};
  settings.forward.compute_dtype =
      config.train.compute_dtype == ComputeDtype::kBfloat16 ? at::kBFloat16 : at::kFloat;
  settings.forward.recompute = config.train.checkpoint_activations;
  settings.forward.logits = false;  // the loss makes them in chunks
  return settings;
}

TrainStep::TrainStep(Transformer model,
                     Optimizer& optimizer,
                     StepSettings settings,
                     RankGroup& ranks)
    : model_(std::move(model)),
      optimizer_(optimizer),
      settings_(std::move(settings)),
      ranks_(ranks) {}

int64_t share_micro_batches(int64_t accumulation, const RankGroup& ranks) {
  if (accumulation % ranks.size() == 0) return accumulation / ranks.size();
  throw Error(
      fmt::format("train.accumulation: expected a multiple of the {} ranks, which share its "
                  "micro-batches, got {}",
                  ranks.size(),
                  accumulation));
}

void TrainStep::join_ranks(const DistributedConfig& config) {
  if (ranks_.is_alone()) return;
  const GradientReducerConfig reduction{
      .bucket_mebibytes = static_cast<double>(config.bucket_mebibytes),
      .compress_bfloat16 = config.compress_gradients};
  reducer_ = std::make_unique<GradientReducer>(ranks_, named_parameters(*model_), reduction);
}

StepResult TrainStep::run(const std::vector<Batch>& batches,
                          int64_t step,
                          double learning_rate,
                          StepTimer* timer) {
  const auto lap = [timer](StepPart part) {
    if (timer != nullptr) timer->lap(part);
  };
  // What set-up left behind is of sizes that no step asks for.
  if (is_first_) step_memory::release_waiting();
  is_first_ = false;
  use_fast_float32_products(settings_.fast_float32);
  const auto n_batches = static_cast<int64_t>(batches.size()) * ranks_.size();
  const auto routing = measure_routing(batches);  // empty unless mi_scope is global
  lap(StepPart::kOther);
  StepResult result{.loss = {}, .gradient_norm = 0, .learning_rate = learning_rate};
  for (const auto& batch : batches) {
    const auto output = model_->forward(batch.tokens, settings_.plan, options_for(batch));
    lap(StepPart::kForward);
    if (hooks_.on_output) hooks_.on_output(output);
    auto loss = compute_loss(output, batch.targets, settings_.loss, n_batches, routing);
    if (hooks_.on_loss) hooks_.on_loss(loss.total);
    lap(StepPart::kLoss);
    backward(loss.total, &batch == &batches.back());
    lap(StepPart::kBackward);
    accumulate(result.loss, loss);
  }
  add_over_ranks(result);
  if (hooks_.on_gradients) hooks_.on_gradients();
  lap(StepPart::kOther);
  result.gradient_norm = optimizer_.clip_gradients(settings_.clip_norm);
  if (!hooks_.accepts) check_finite(result, batches, step);
  if (!hooks_.accepts || hooks_.accepts(result, batches)) update(learning_rate);
  optimizer_.clear_gradients();
  if (step % kTrimSteps == 0) step_memory::trim();
  lap(StepPart::kOptimizer);
  return result;
}

ForwardOptions TrainStep::options_for(const Batch& batch) const {
  ForwardOptions options = settings_.forward;
  options.document_positions = batch.document_positions;
  return options;
}

void TrainStep::update(double learning_rate) {
  optimizer_.step(learning_rate);
  share_parameters(optimizer_, ranks_);
}

// The reducer takes the mean over ranks where the loss's terms are shares of a sum.
void TrainStep::backward(const at::Tensor& loss, bool is_last) {
  if (reducer_ == nullptr) return loss.backward();
  reducer_->backward(loss * static_cast<double>(ranks_.size()), is_last);
}

// Loss terms, what hooks have to add, and whether to stop: one small all-reduce.
void TrainStep::add_over_ranks(StepResult& result) {
  result.stop = stop_requested();
  if (ranks_.is_alone()) return;
  std::vector<at::Tensor*> terms = {&result.loss.total};
  for (auto& value : result.loss.values) terms.push_back(&value);
  std::vector<double> numbers = {result.stop ? 1.0 : 0.0};
  for (const auto* term : terms) {
    numbers.push_back(term->defined() ? term->item<double>() : 0.0);
  }
  const auto others = hooks_.numbers_to_add ? hooks_.numbers_to_add() : std::vector<double*>{};
  for (const auto* other : others) numbers.push_back(*other);
  const auto sums = at::tensor(numbers, at::kDouble);
  ranks_.all_reduce_sum(sums, "adding the losses");
  const auto* sum = sums.const_data_ptr<double>();
  result.stop = *sum++ > 0;
  for (auto* term : terms) {
    if (term->defined()) *term = at::scalar_tensor(*sum, term->options());
    ++sum;
  }
  for (auto* other : others) *other = *sum++;
}

StepRouting TrainStep::measure_routing(const std::vector<Batch>& batches) {
  // One micro-batch is the whole batch: its own mean is the global one.
  const int64_t n_batches = static_cast<int64_t>(batches.size()) * ranks_.size();
  if (settings_.loss.mi_scope != MiScope::kGlobal || n_batches < 2) return {};
  const at::NoGradGuard no_grad;
  const auto before = capture_random_state(model_->device());
  StepRoutingSum sum;
  for (const auto& batch : batches) {
    sum.add(model_->forward(batch.tokens, settings_.plan, options_for(batch)));
  }
  // The second pass draws the same dropout masks.
  restore_random_state(before, model_->device());
  for (const auto& tensor : sum.tensors()) {
    ranks_.all_reduce_sum(tensor, "adding the routers' probabilities");
  }
  return sum.mean(ranks_.size());
}

void TrainStep::check_finite(const StepResult& result,
                             const std::vector<Batch>& batches,
                             int64_t step) {
  const auto total = result.loss.total.item<double>();
  const auto norm = result.gradient_norm;
  if (std::isfinite(total) && std::isfinite(norm)) return;
  std::string where = "every gradient is finite";
  if (const auto name = optimizer_.first_non_finite_gradient()) {
    where = fmt::format("first in the gradient of '{}'", *name);
  }
  throw RunError(fmt::format(
      "step {}: expected a finite loss and gradient, got loss {} and gradient norm {}, {}; "
      "training sequences {} to {}; the weights are those of step {}",
      step,
      format_loss(total, loss_terms(result.loss, settings_.loss)),
      norm,
      where,
      batches.front().positions.front(),
      batches.back().positions.back(),
      step - 1));
}

}  // namespace dsmoe
