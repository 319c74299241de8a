#include "csrc_kernels/expert_gemv/expert_gemv.h"
#include "model/experts/expert_backend.h"

namespace dsmoe {
namespace {

WideLinear wide(const Linear& linear, at::ScalarType dtype) {
  if (linear.is_empty()) return {};
  return {linear.ptr()->weight_as(dtype), linear->bias};
}

class GemvBackend final : public ExpertBackend {
 public:
  bool needs_host_sync(const at::Tensor&) const override { return false; }
  void list(ExpertPass&, const at::Tensor&) const override {}

  Hidden hidden(const ExpertPass& pass, const at::Tensor& x) const override {
    const auto& experts = pass.experts;
    const auto dtype = x.scalar_type();
    return {expert_gemv_hidden(x.contiguous(),
                               experts.activation,
                               wide(experts.up, dtype),
                               wide(experts.gate, dtype),
                               pass.choice.expert_weights.contiguous(),
                               experts.activation != Activation::kIdentity)};
  }

  at::Tensor sum(const ExpertPass& pass, const Hidden& hidden) const override {
    return expert_gemv_sum(hidden.values,
                           wide(pass.experts.down, hidden.values.scalar_type()),
                           pass.choice.expert_weights.contiguous(),
                           pass.experts.activation == Activation::kIdentity);
  }
};

}  // namespace

const ExpertBackend& gemv_backend() {
  static const GemvBackend backend;
  return backend;
}

}  // namespace dsmoe
