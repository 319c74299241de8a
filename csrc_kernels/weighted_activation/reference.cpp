#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/relu.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/square.h>

#include "csrc_kernels/weighted_activation/weighted_activation.h"

namespace dsmoe {
namespace {

at::Tensor activate(Activation activation, const at::Tensor& up, const at::Tensor& gate) {
  switch (activation) {
    case Activation::kIdentity:
      return up;
    case Activation::kGelu:
      return at::gelu(up);
    case Activation::kGeluTanh:
      return at::gelu(up, "tanh");
    case Activation::kSwiglu:
      return at::silu(gate) * up;
    case Activation::kSilu:
      return at::silu(up);
    case Activation::kQuickGelu:
      return up * at::sigmoid(1.702 * up);
    case Activation::kReluSquared:
      return at::relu(up).square();
  }
  TORCH_CHECK(false, "weighted_activation_ref: unknown activation");
}

}  // namespace

at::Tensor weighted_activation_ref(Activation activation,
                                   const at::Tensor& up,
                                   const at::Tensor& gate,
                                   const at::Tensor& expert_weights) {
  const auto hidden = activate(activation, up, gate);
  if (!expert_weights.defined()) return hidden;
  // [n_rows, n_experts * F] -> [n_rows, n_experts, F] and back
  const auto experts = hidden.view({up.size(0), expert_weights.size(1), -1});
  return (experts * expert_weights.to(up.scalar_type()).unsqueeze(2)).view(up.sizes());
}

}  // namespace dsmoe
