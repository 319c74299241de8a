#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/ne.h>

#include "csrc_kernels/expert_gemv/expert_gemv.h"
#include "csrc_kernels/weighted_activation/weighted_activation.h"

namespace dsmoe {
namespace {

at::Tensor project_row(const at::Tensor& x, const WideLinear& linear) {
  if (!linear.weight.defined()) return {};
  const auto y = at::linear(x.to(at::kDouble), linear.weight.to(at::kDouble));
  return linear.bias.defined() ? y + linear.bias : y;
}

// The experts' weights, or ones where they have one.
at::Tensor factors(const at::Tensor& expert_weights, bool weighted) {
  const auto weights = expert_weights.to(at::kDouble);
  return weighted ? weights : at::ne(weights, 0).to(at::kDouble);
}

}  // namespace

at::Tensor expert_gemv_hidden_ref(const at::Tensor& x,
                                  Activation activation,
                                  const WideLinear& up,
                                  const WideLinear& gate,
                                  const at::Tensor& expert_weights,
                                  bool weighted) {
  const auto weights = expert_weights.defined() ? factors(expert_weights, weighted) : at::Tensor();
  return weighted_activation_ref(activation, project_row(x, up), project_row(x, gate), weights)
      .to(x.scalar_type());
}

at::Tensor expert_gemv_sum_ref(const at::Tensor& hidden,
                               const WideLinear& down,
                               const at::Tensor& expert_weights,
                               bool weighted) {
  const auto factored = weighted_activation_ref(
      Activation::kIdentity, hidden.to(at::kDouble), {}, factors(expert_weights, weighted));
  return project_row(factored, down).to(hidden.scalar_type());
}

}  // namespace dsmoe
