#include "train/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <set>

#include "common/error.h"

namespace dsmoe {

Optimizer::Optimizer(NamedTensors parameters, const OptimizerConfig& config) : config_(config) {
  std::set<std::string> names;
  int64_t n_elements = 0;
  for (const auto& [name, parameter] : parameters) {
    if (!names.insert(name).second) {
      throw Error("Optimizer: expected each parameter once, got '" + name + "' twice");
    }
    TORCH_CHECK(parameter.scalar_type() == at::kFloat,
                "Optimizer: expected '",
                name,
                "' in float32, got ",
                parameter.scalar_type());
    n_elements += parameter.numel();
  }
  moments_ = at::zeros({2, n_elements}, at::kFloat);
  int64_t begin = 0;
  for (const auto& [name, parameter] : parameters) {
    const auto moment = [&, shape = parameter.sizes(), n = parameter.numel()](int64_t which) {
      return moments_.select(0, which).narrow(0, begin, n).view(shape);
    };
    slots_.push_back(
        {name, parameter, moment(0), moment(1), at::zeros({}, at::kFloat), parameter.dim() >= 2});
    begin += parameter.numel();
  }
}

std::vector<AdamwSlot> Optimizer::slots_with_gradient() const {
  std::vector<AdamwSlot> slots;
  for (const auto& slot : slots_) {
    const auto& gradient = slot.parameter.grad();
    if (!gradient.defined()) continue;
    slots.push_back({.parameter = slot.parameter,
                     .gradient = gradient.contiguous(),
                     .exp_avg = slot.exp_avg,
                     .exp_avg_sq = slot.exp_avg_sq,
                     .step = slot.step.item<int64_t>() + 1,
                     .weight_decay = slot.decays ? config_.weight_decay : 0.0});
  }
  return slots;
}

double Optimizer::clip_gradients(double max_norm) {
  const double norm = gradient_norm(slots_with_gradient());
  gradient_scale_ = max_norm > 0 ? std::min(1.0, max_norm / (norm + 1e-6)) : 1.0;
  return norm;
}

void Optimizer::step(double lr) {
  const at::NoGradGuard no_grad;
  adamw_step(slots_with_gradient(),
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
  for (auto& slot : slots_) slot.parameter.mutable_grad() = at::Tensor();
}

NamedTensors Optimizer::named_state() const {
  NamedTensors state;
  for (const auto& slot : slots_) {
    state.emplace_back(slot.name + ".exp_avg", slot.exp_avg);
    state.emplace_back(slot.name + ".exp_avg_sq", slot.exp_avg_sq);
    state.emplace_back(slot.name + ".step", slot.step);
  }
  return state;
}

std::optional<std::string> Optimizer::first_non_finite_gradient() const {
  for (const auto& slot : slots_) {
    const auto& gradient = slot.parameter.grad();
    if (gradient.defined() && !at::isfinite(gradient).all().item<bool>()) return slot.name;
  }
  return std::nullopt;
}

}  // namespace dsmoe
