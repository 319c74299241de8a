#include <ATen/TensorOperators.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>

#include "csrc_kernels/router/router.h"

namespace dsmoe {

RouterResult route_ref(const at::Tensor& x, const RouterWeights& weights, bool sigmoid) {
  auto features = x;
  if (weights.gate.defined()) {
    const auto project = [&](const at::Tensor& weight) {
      return at::linear(x, weight.to(x.scalar_type()));
    };
    features = at::silu(project(weights.gate)) * project(weights.up);
  }
  const auto logits = at::linear(features.to(weights.out.scalar_type()), weights.out);
  return {logits, sigmoid ? at::sigmoid(logits) : at::softmax(logits, -1)};
}

}  // namespace dsmoe
