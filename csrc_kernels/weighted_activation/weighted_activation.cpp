#include "csrc_kernels/weighted_activation/weighted_activation.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <torch/csrc/autograd/custom_function.h>

#include "csrc_kernels/common/tensors.h"

namespace dsmoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr const char* kName = "weighted_activation";

template <typename T, typename W>
WeightedActivationRows<T, W> rows_of(const at::Tensor& up,
                                     const at::Tensor& gate,
                                     const at::Tensor& weights,
                                     const at::Tensor& hidden) {
  const int64_t n_experts = weights.defined() ? weights.size(1) : 1;
  return {.n_rows = up.size(0),
          .n_experts = n_experts,
          .width = up.size(1) / n_experts,
          .up = pointer<const T>(up),
          .gate = pointer<const T>(gate),
          .weights = pointer<const W>(weights),
          .hidden = pointer<T>(hidden)};
}

at::Tensor run_forward(Activation activation,
                       const at::Tensor& up,
                       const at::Tensor& gate,
                       const at::Tensor& weights) {
  auto hidden = at::empty_like(up);
  dispatch_float_types(kName, up.scalar_type(), [&]<typename T, typename W>() {
    const auto rows = rows_of<T, W>(up, gate, weights, hidden);
    kernels_for<WeightedActivationKernels<T, W>>(up.is_cpu()).forward(activation, rows);
  });
  return hidden;
}

struct Backward {
  at::Tensor hidden;  // [n_rows, n_experts * F], computed again
  at::Tensor grad_up;
  at::Tensor grad_gate;
  at::Tensor grad_weights;
};

// Overwrites grad_hidden with the gradient of up where it may.
Backward run_backward(Activation activation,
                      const variable_list& saved,  // up, gate, weights
                      const at::Tensor& grad_hidden,
                      bool may_overwrite) {
  const auto& up = saved[0];
  const auto& gate = saved[1];
  const auto& weights = saved[2];
  Backward result;
  result.hidden = at::empty_like(up);
  result.grad_up = may_overwrite ? grad_hidden : at::empty_like(up);
  if (gate.defined()) result.grad_gate = at::empty_like(gate);
  if (weights.defined()) result.grad_weights = at::empty_like(weights);
  dispatch_float_types(kName, up.scalar_type(), [&]<typename T, typename W>() {
    const auto rows = rows_of<T, W>(up, gate, weights, result.hidden);
    const WeightedActivationGradients<T, W> gradients{
        .grad_hidden = pointer<const T>(grad_hidden),
        .grad_up = pointer<T>(result.grad_up),
        .grad_gate = pointer<T>(result.grad_gate),
        .grad_weights = pointer<W>(result.grad_weights)};
    kernels_for<WeightedActivationKernels<T, W>>(up.is_cpu()).backward(activation, rows, gradients);
  });
  return result;
}

struct WeightedActivation : torch::autograd::Function<WeightedActivation> {
  static at::Tensor forward(AutogradContext* ctx,
                            int64_t activation,
                            const at::Tensor& up,
                            const OptionalTensor& gate,
                            const OptionalTensor& weights) {
    ctx->save_for_backward({up, tensor_or_undefined(gate), tensor_or_undefined(weights)});
    ctx->saved_data["activation"] = activation;
    return run_forward(static_cast<Activation>(activation),
                       up,
                       tensor_or_undefined(gate),
                       tensor_or_undefined(weights));
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto activation = static_cast<Activation>(ctx->saved_data["activation"].toInt());
    auto result =
        run_backward(activation, ctx->get_saved_variables(), grads[0].contiguous(), false);
    return {at::Tensor(), result.grad_up, result.grad_gate, result.grad_weights};
  }
};

struct WeightedActivationLinear : torch::autograd::Function<WeightedActivationLinear> {
  static at::Tensor forward(AutogradContext* ctx,
                            int64_t activation,
                            const at::Tensor& up,
                            const OptionalTensor& gate,
                            const OptionalTensor& weights,
                            const at::Tensor& down_weight) {
    ctx->save_for_backward(
        {up, tensor_or_undefined(gate), tensor_or_undefined(weights), down_weight});
    ctx->saved_data["activation"] = activation;
    const auto hidden = run_forward(static_cast<Activation>(activation),
                                    up,
                                    tensor_or_undefined(gate),
                                    tensor_or_undefined(weights));
    return at::mm(hidden, down_weight.t());
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    const auto activation = static_cast<Activation>(ctx->saved_data["activation"].toInt());
    const auto saved = ctx->get_saved_variables();
    const auto grad_y = grads[0].contiguous();
    auto result = run_backward(activation, saved, at::mm(grad_y, saved[3]), true);
    const auto grad_down = at::mm(grad_y.t(), result.hidden);
    return {at::Tensor(), result.grad_up, result.grad_gate, result.grad_weights, grad_down};
  }
};

void check(Activation activation,
           const at::Tensor& up,
           const at::Tensor& gate,
           const at::Tensor& weights) {
  TORCH_CHECK(up.dim() == 2 && up.is_contiguous(),
              kName,
              ": expected up [n_rows, n_experts * F], contiguous, got ",
              up.sizes());
  TORCH_CHECK(gate.defined() == (activation == Activation::kSwiglu),
              kName,
              ": expected a gate for swiglu and for nothing else");
  TORCH_CHECK(!gate.defined() || (gate.sizes() == up.sizes() && gate.is_contiguous() &&
                                  gate.scalar_type() == up.scalar_type()),
              kName,
              ": expected a gate like up ",
              up.sizes(),
              ", got ",
              gate.defined() ? gate.sizes() : at::IntArrayRef{});
  if (!weights.defined()) return;
  TORCH_CHECK(weights.dim() == 2 && weights.is_contiguous() && weights.size(0) == up.size(0) &&
                  weights.size(1) > 0 && up.size(1) % weights.size(1) == 0,
              kName,
              ": expected expert_weights [",
              up.size(0),
              ", n_experts], contiguous, with n_experts dividing ",
              up.size(1),
              ", got ",
              weights.sizes());
  const auto wide = up.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  TORCH_CHECK(weights.scalar_type() == wide,
              kName,
              ": expected expert_weights of type ",
              wide,
              ", got ",
              weights.scalar_type());
}

bool has_kernel(const at::Tensor& x) {
  return x.is_cpu() || device_kernels<WeightedActivationKernels<float, float>>().forward != nullptr;
}

}  // namespace

at::Tensor weighted_activation(Activation activation,
                               const at::Tensor& up,
                               const at::Tensor& gate,
                               const at::Tensor& expert_weights) {
  check(activation, up, gate, expert_weights);
  if (!has_kernel(up)) return weighted_activation_ref(activation, up, gate, expert_weights);
  return WeightedActivation::apply(
      static_cast<int64_t>(activation), up, optional(gate), optional(expert_weights));
}

at::Tensor weighted_activation_linear(Activation activation,
                                      const at::Tensor& up,
                                      const at::Tensor& gate,
                                      const at::Tensor& expert_weights,
                                      const at::Tensor& down_weight) {
  check(activation, up, gate, expert_weights);
  TORCH_CHECK(down_weight.dim() == 2 && down_weight.size(1) == up.size(1) &&
                  down_weight.scalar_type() == up.scalar_type(),
              "weighted_activation_linear: expected down_weight [d_out, ",
              up.size(1),
              "] of type ",
              up.scalar_type(),
              ", got ",
              down_weight.sizes(),
              " ",
              down_weight.scalar_type());
  if (!has_kernel(up)) {
    return at::mm(weighted_activation_ref(activation, up, gate, expert_weights), down_weight.t());
  }
  return WeightedActivationLinear::apply(
      static_cast<int64_t>(activation), up, optional(gate), optional(expert_weights), down_weight);
}

}  // namespace dsmoe
