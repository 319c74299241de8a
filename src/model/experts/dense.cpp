#include <ATen/TensorOperators.h>

#include "csrc_kernels/weighted_activation/weighted_activation.h"
#include "model/experts/expert_backend.h"

namespace dsmoe {
namespace {

/// down((weights repeated width times) * act(up x, gate x)): two wide products without a copy.
class DenseBackend final : public ExpertBackend {
 public:
  bool needs_host_sync(const at::Tensor&) const override { return false; }
  void list(ExpertPass&, const at::Tensor&) const override {}

  Hidden hidden(const ExpertPass& pass, const at::Tensor& x) const override {
    const auto& experts = pass.experts;
    const auto gate = experts.gate.is_empty() ? at::Tensor() : experts.gate.ptr()->forward(x);
    return {experts.up.ptr()->forward(x), gate};
  }

  at::Tensor sum(const ExpertPass& pass, const Hidden& hidden) const override {
    const auto& [experts, policy, choice, role, rows] = pass;
    const auto dtype = hidden.values.scalar_type();
    const auto& weights = choice.expert_weights;
    const auto y = weighted_activation_linear(experts.activation,
                                              hidden.values,
                                              hidden.gate,
                                              weights.defined() ? weights.contiguous() : weights,
                                              experts.down.ptr()->weight_as(dtype));
    const auto& bias = experts.down->bias;
    return bias.defined() ? y + bias.to(dtype) : y;
  }
};

}  // namespace

const ExpertBackend& dense_backend() {
  static const DenseBackend backend;
  return backend;
}

}  // namespace dsmoe
