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
#include "train/caching_allocator.h"
#include "train/random_state.h"
#include "train/sharded_optimizer.h"

namespace dsmoe {
namespace {

// Blocks that so many steps did not use are returned: those of a validation, not those of a step.
constexpr int64_t kTrimSteps = 16;

void credit(StepTimer* timer, StepPart part) {
  if (timer != nullptr) timer->lap(part);
}

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
  settings.forward.logits = false;  // the loss computes them in chunks
  return settings;
}

TrainStep::TrainStep(Transformer model,
                     Optimizer& optimizer,
                     StepSettings settings,
                     RankGroup& ranks,
                     ParameterShards* shards)
    : model_(std::move(model)),
      optimizer_(optimizer),
      settings_(std::move(settings)),
      ranks_(ranks),
      shards_(shards) {}

int64_t share_micro_batches(int64_t accumulation, const RankGroup& ranks) {
  if (accumulation % ranks.world_size() == 0) return accumulation / ranks.world_size();
  throw Error(fmt::format("train.accumulation: expected a multiple of the {} ranks, got {}",
                          ranks.world_size(),
                          accumulation));
}

void TrainStep::join_ranks(const DistributedConfig& config) {
  if (shards_ != nullptr) shards_->gather();
  if (ranks_.world_size() == 1 || shards_ != nullptr) return;
  const GradientReducerConfig reduction{
      .bucket_mebibytes = static_cast<double>(config.bucket_mebibytes),
      .compress_bfloat16 = config.compress_gradients};
  reducer_ = std::make_unique<GradientReducer>(ranks_, named_parameters(*model_), reduction);
}

StepContext TrainStep::begin(const std::vector<Batch>& batches) {
  // No step requests the block sizes that set-up left.
  if (is_first_step_) caching_allocator::release_waiting();
  is_first_step_ = false;
  use_fast_float32_products(settings_.fast_float32);
  return {.n_micro_batches = static_cast<int64_t>(batches.size()) * ranks_.world_size(),
          .routing = measure_routing(batches)};
}

StepRouting TrainStep::measure_routing(const std::vector<Batch>& batches) {
  // One micro-batch is the whole batch: its own mean is the global one.
  const int64_t n_batches = static_cast<int64_t>(batches.size()) * ranks_.world_size();
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
  return sum.mean(ranks_.world_size());
}

ForwardOptions TrainStep::options_for(const Batch& batch) const {
  ForwardOptions options = settings_.forward;
  options.document_positions = batch.document_positions;
  return options;
}

MicroBatchResult TrainStep::forward_backward(const Batch& batch,
                                             const StepContext& context,
                                             bool is_last,
                                             StepTimer* timer) {
  MicroBatchResult result;
  result.output = model_->forward(batch.tokens, settings_.plan, options_for(batch));
  credit(timer, StepPart::kForward);
  result.loss = compute_loss(
      result.output, batch.targets, settings_.loss, context.n_micro_batches, context.routing);
  credit(timer, StepPart::kLoss);
  if (shards_ != nullptr) {
    shards_->backward(result.loss.total, is_last);
  } else if (reducer_ == nullptr) {
    result.loss.total.backward();
  } else {
    // The reducer computes the mean over ranks, but the terms of the loss are shares of a sum.
    reducer_->backward(result.loss.total * static_cast<double>(ranks_.world_size()), is_last);
  }
  credit(timer, StepPart::kBackward);
  return result;
}

// One small all-reduce.
void TrainStep::reduce(StepResult& result, const std::vector<double*>& others) {
  result.stop = stop_requested();
  if (shards_ != nullptr) squared_norm_ = std::pow(optimizer_.own_gradient_norm(), 2);
  if (ranks_.world_size() == 1) return;
  std::vector<at::Tensor*> losses = {&result.loss.total};
  for (auto& value : result.loss.values) losses.push_back(&value);
  std::vector<double> numbers = {result.stop ? 1.0 : 0.0, squared_norm_};
  for (const auto* loss : losses) numbers.push_back(loss->defined() ? loss->item<double>() : 0.0);
  for (const auto* other : others) numbers.push_back(*other);
  const auto sums = at::tensor(numbers, at::kDouble);
  ranks_.all_reduce_sum(sums, "adding the losses");
  const auto* sum = sums.const_data_ptr<double>();
  result.stop = *sum++ > 0;
  squared_norm_ = *sum++;
  for (auto* loss : losses) {
    if (loss->defined()) *loss = at::scalar_tensor(*sum, loss->options());
    ++sum;
  }
  for (auto* other : others) *other = *sum++;
}

double TrainStep::prepare_clipping() {
  if (shards_ == nullptr) return optimizer_.prepare_clipping(settings_.clip_norm);
  const double norm = std::sqrt(squared_norm_);
  optimizer_.set_clipping(norm, settings_.clip_norm);
  return norm;
}

void TrainStep::update(double learning_rate) {
  optimizer_.step(learning_rate);
  share_parameters(optimizer_, ranks_);
  if (shards_ != nullptr) shards_->gather();
}

void TrainStep::end(int64_t step) {
  optimizer_.clear_gradients();
  if (shards_ != nullptr) shards_->clear_gradients();
  if (step % kTrimSteps == 0) caching_allocator::trim();
}

StepResult TrainStep::run(const std::vector<Batch>& batches,
                          int64_t step,
                          double learning_rate,
                          StepTimer* timer) {
  StepResult result;
  result.learning_rate = learning_rate;
  const auto context = begin(batches);
  credit(timer, StepPart::kOther);
  for (const auto& batch : batches) {
    accumulate(result.loss,
               forward_backward(batch, context, &batch == &batches.back(), timer).loss);
  }
  reduce(result);
  credit(timer, StepPart::kOther);
  result.gradient_norm = prepare_clipping();
  if (const auto loss = result.loss.total.item<double>();
      !std::isfinite(loss) || !std::isfinite(result.gradient_norm)) {
    throw RunError(fmt::format(
        "step {}: expected a finite loss and gradient, got loss {} and gradient norm {}",
        step,
        format_loss(loss, loss_terms(result.loss, settings_.loss)),
        result.gradient_norm));
  }
  update(learning_rate);
  end(step);
  credit(timer, StepPart::kOptimizer);
  return result;
}

}  // namespace dsmoe
