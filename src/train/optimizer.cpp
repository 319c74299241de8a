#include "train/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <set>

#include "common/error.h"

namespace dsmoe {

Optimizer::Optimizer(NamedTensors parameters, const OptimizerConfig& config, OptimizerShard shard)
    : config_(config), shard_(shard) {
  std::set<std::string> names;
  int64_t n_elements = 0;
  for (const auto& [name, parameter] : parameters) {
    if (!names.insert(name).second) {
      throw Error("Optimizer: expected each parameter once, got '" + name + "' twice");
    }
    const auto dtype = parameter.scalar_type();
    TORCH_CHECK((dtype == at::kFloat || dtype == at::kDouble) &&
                    dtype == parameters.front().second.scalar_type(),
                "Optimizer: expected '",
                name,
                "' in float32, or all parameters in float64, got ",
                dtype);
    slots_.push_back(
        {name, parameter, at::zeros({}, at::kFloat), parameter.dim() >= 2, n_elements});
    n_elements += parameter.numel();
  }
  const auto options = slots_.empty() ? at::TensorOptions(at::kFloat)
                                      : slots_[0].parameter.options().requires_grad(false);
  moments_ = at::zeros({2, (n_elements + shard.count - 1) / shard.count}, options);
}

Optimizer::Optimizer(const std::vector<OptimizedPiece>& pieces, const OptimizerConfig& config)
    : config_(config) {
  int64_t n_elements = 0;
  for (const auto& piece : pieces) {
    slots_.push_back(
        {piece.name, piece.elements, at::zeros({}, at::kFloat), piece.decays, n_elements});
    slots_.back().parameter.mutable_grad() = piece.gradient;
    n_elements += piece.elements.numel();
  }
  keeps_gradients_ = true;
  const auto options =
      pieces.empty() ? at::TensorOptions(at::kFloat) : pieces.front().elements.options();
  moments_ = at::zeros({2, n_elements}, options);
}

at::Tensor Optimizer::moment_of(const Slot& slot, int64_t which) const {
  return moments_.select(0, which)
      .narrow(0, slot.begin, slot.parameter.numel())
      .view(slot.parameter.sizes());
}

// The elements of a parameter that belong to the shard; empty if there are none.
AdamwSlot Optimizer::own_part(const Slot& slot) const {
  const int64_t first = std::max(slot.begin, shard_begin());
  const int64_t last =
      std::min(slot.begin + slot.parameter.numel(), shard_begin() + moments_.size(1));
  const int64_t n = std::max<int64_t>(last - first, 0);
  const int64_t offset = n > 0 ? first - slot.begin : 0;
  const int64_t in_shard = n > 0 ? first - shard_begin() : 0;
  const auto part = [&](const at::Tensor& whole) { return whole.view(-1).narrow(0, offset, n); };
  return {.parameter = part(slot.parameter.detach()),
          .gradient = part(slot.parameter.grad().contiguous()),
          .exp_avg = moments_.select(0, 0).narrow(0, in_shard, n),
          .exp_avg_sq = moments_.select(0, 1).narrow(0, in_shard, n),
          .step = slot.step.item<int64_t>() + 1,
          .weight_decay = slot.decays ? config_.weight_decay : 0.0};
}

double Optimizer::own_gradient_norm() const {
  std::vector<at::Tensor> gradients;
  for (const auto& slot : slots_) {
    const auto& gradient = slot.parameter.grad();
    if (gradient.defined()) gradients.push_back(gradient.contiguous());
  }
  return gradients.empty() ? 0.0 : gradient_norm(gradients);
}

void Optimizer::set_clipping(double norm, double max_norm) {
  gradient_scale_ = max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0;
}

double Optimizer::prepare_clipping(double max_norm) {
  const double norm = own_gradient_norm();
  set_clipping(norm, max_norm);
  return norm;
}

void Optimizer::step(double lr) {
  const at::NoGradGuard no_grad;
  std::vector<AdamwSlot> slots;
  for (const auto& slot : slots_) {
    if (!slot.parameter.grad().defined()) continue;
    if (auto part = own_part(slot); part.parameter.numel() > 0) slots.push_back(std::move(part));
  }
  adamw_step(slots,
             {.lr = lr,
              .beta1 = config_.beta1,
              .beta2 = config_.beta2,
              .eps = config_.eps,
              .gradient_scale = gradient_scale_});
  for (auto& slot : slots_) {
    if (slot.parameter.grad().defined()) slot.step.add_(1);
  }
  gradient_scale_ = 1.0;
}

void Optimizer::clear_gradients() {
  if (keeps_gradients_) return;
  for (auto& slot : slots_) slot.parameter.mutable_grad() = at::Tensor();
}

NamedTensors Optimizer::named_state() const {
  TORCH_CHECK(!is_sharded(), "Optimizer: a shard has no whole state");
  NamedTensors state;
  for (const auto& slot : slots_) {
    state.emplace_back(slot.name + ".exp_avg", moment_of(slot, 0));
    state.emplace_back(slot.name + ".exp_avg_sq", moment_of(slot, 1));
    state.emplace_back(slot.name + ".step", slot.step);
  }
  return state;
}

NamedTensors Optimizer::empty_state() const {
  NamedTensors state;
  for (const auto& slot : slots_) {
    for (const auto* kind : {".exp_avg", ".exp_avg_sq"}) {
      state.emplace_back(slot.name + kind,
                         at::zeros(slot.parameter.sizes(), moments_.scalar_type()));
    }
    state.emplace_back(slot.name + ".step", at::zeros({}, at::kFloat));
  }
  return state;
}

NamedTensors Optimizer::parameters() const {
  NamedTensors parameters;
  for (const auto& slot : slots_) parameters.emplace_back(slot.name, slot.parameter);
  return parameters;
}

NamedTensors Optimizer::steps() const {
  NamedTensors steps;
  for (const auto& slot : slots_) steps.emplace_back(slot.name, slot.step);
  return steps;
}

}  // namespace dsmoe
