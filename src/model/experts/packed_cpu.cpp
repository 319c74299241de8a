#include <ATen/TensorOperators.h>

#include "csrc_kernels/expert_rows/expert_rows.h"
#include "model/experts/expert_backend.h"

namespace dsmoe {
namespace {

class PackedCpuBackend final : public ExpertBackend {
 public:
  bool needs_host_sync(const at::Tensor&) const override { return true; }

  void list(ExpertPass& pass, const at::Tensor& x) const override {
    const auto& [selected, weights, most] = pass.choice;
    TORCH_CHECK(selected.defined() || pass.experts.n_experts == 1,
                "experts: expected a choice for the experts of a packed mixture, got none");
    pass.rows = selected.defined()
                    ? list_on_host(selected, weights, pass.policy.execution == Execution::kDense)
                    : one_expert(x.size(0));
  }

  Hidden hidden(const ExpertPass& pass, const at::Tensor& x) const override {
    const auto& experts = pass.experts;
    const ExpertInput input{
        .up = experts.up->packed(),
        .gate = experts.gate.is_empty() ? PackedLinear{} : experts.gate->packed(),
        .activation = experts.activation};
    if (experts.activation != Activation::kIdentity) {
      return {expert_hidden(x.contiguous(), pass.rows, input)};
    }
    auto unweighted = pass.rows;
    unweighted.weight_of_row.reset();
    return {expert_hidden(x.contiguous(), unweighted, input)};
  }

  at::Tensor sum(const ExpertPass& pass, const Hidden& hidden) const override {
    const auto& values = hidden.values;
    const bool weighted = pass.experts.activation != Activation::kIdentity;
    return expert_sum(
        weighted ? values : values * pass.rows.weight_of_row.to(values.scalar_type()).unsqueeze(1),
        pass.rows,
        pass.experts.down->packed());
  }
};

}  // namespace

const ExpertBackend& packed_cpu_backend() {
  static const PackedCpuBackend backend;
  return backend;
}

}  // namespace dsmoe
