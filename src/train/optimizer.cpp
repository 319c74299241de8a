#include "train/optimizer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <set>

#include "common/error.h"

namespace dsmoe {

Optimizer::Optimizer(NamedTensors parameters, const OptimizerConfig& config) : config_(config) {
  std::set<std::string> names;
  for (auto& [name, parameter] : parameters) {
    if (!names.insert(name).second) {
      throw Error("Optimizer: expected each parameter once, got '" + name + "' twice");
    }
    TORCH_CHECK(parameter.scalar_type() == at::kFloat,
                "Optimizer: expected '",
                name,
                "' in float32, got ",
                parameter.scalar_type());
    const bool decays = parameter.dim() >= 2;
    slots_.push_back({name,
                      parameter,
                      at::zeros_like(parameter).detach(),
                      at::zeros_like(parameter).detach(),
                      at::zeros({}, parameter.options().requires_grad(false)),
                      decays});
  }
}

at::Tensor Optimizer::clip_gradients(double max_norm) {
  at::NoGradGuard no_grad;
  std::vector<at::Tensor> gradients;
  for (const auto& slot : slots_) {
    if (slot.parameter.grad().defined()) gradients.push_back(slot.parameter.grad());
  }
  if (gradients.empty()) return at::zeros({}, at::kFloat);
  const auto norms = at::stack(at::_foreach_norm(gradients, 2));  // [n_gradients]
  const auto norm = at::linalg_vector_norm(norms, 2);             // scalar
  if (max_norm > 0) {
    const auto scale = (norm + 1e-6).reciprocal().mul(max_norm).clamp_max(1.0);
    at::_foreach_mul_(gradients, scale);
  }
  return norm;
}

void Optimizer::step(double lr) {
  at::NoGradGuard no_grad;
  step_group(true, lr);
  step_group(false, lr);
}

void Optimizer::step_group(bool decays, double lr) {
  std::vector<at::Tensor> parameters, gradients, exp_avgs, exp_avg_sqs, steps;
  for (const auto& slot : slots_) {
    if (slot.decays != decays || !slot.parameter.grad().defined()) continue;
    parameters.push_back(slot.parameter);
    gradients.push_back(slot.parameter.grad());
    exp_avgs.push_back(slot.exp_avg);
    exp_avg_sqs.push_back(slot.exp_avg_sq);
    steps.push_back(slot.step);
  }
  if (parameters.empty()) return;
  at::_foreach_add_(steps, 1);  // the fused kernel reads the count after this step
  at::_fused_adamw_(parameters,
                    gradients,
                    exp_avgs,
                    exp_avg_sqs,
                    /*max_exp_avg_sqs=*/{},
                    steps,
                    lr,
                    config_.beta1,
                    config_.beta2,
                    decays ? config_.weight_decay : 0.0,
                    config_.eps,
                    /*amsgrad=*/false,
                    /*maximize=*/false);
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
