#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/full.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/mul.h>

#include <cmath>

#include "csrc_kernels/adamw/adamw.h"

namespace dsmoe {

double gradient_norm_ref(const std::vector<at::Tensor>& gradients) {
  at::Tensor sum;
  for (const auto& gradient : gradients) {
    const auto square =
        at::linalg_vector_norm(gradient.detach(), 2.0, {}, false, at::kDouble).pow(2);
    sum = sum.defined() ? sum + square : square;
  }
  return std::sqrt(sum.item<double>());
}

void adamw_step_ref(const std::vector<AdamwSlot>& slots, const AdamwOptions& options) {
  const at::NoGradGuard no_grad;
  for (const auto& slot : slots) {
    const auto step = at::full({},
                               static_cast<double>(slot.step),
                               at::TensorOptions(at::kFloat).device(slot.parameter.device()));
    at::_fused_adamw_({slot.parameter},
                      {slot.gradient * options.gradient_scale},
                      {slot.exp_avg},
                      {slot.exp_avg_sq},
                      /*max_exp_avg_sqs=*/{},
                      {step},
                      options.lr,
                      options.beta1,
                      options.beta2,
                      slot.weight_decay,
                      options.eps,
                      /*amsgrad=*/false,
                      /*maximize=*/false);
  }
}

}  // namespace dsmoe
