#include <ATen/TensorOperators.h>

#include "csrc_kernels/grouped_linear/grouped_linear.h"
#include "csrc_kernels/weighted_activation/weighted_activation.h"
#include "model/experts/row_backend.h"

namespace dsmoe {
namespace {

at::Tensor product(const at::Tensor& x,
                   const Linear& linear,
                   const Dispatch& rows,
                   ExpertAxis axis) {
  const auto weight = linear.ptr()->weight_as(x.scalar_type());
  return rows.ends.defined() ? grouped_linear_by_ends(x, weight, rows.ends, axis)
                             : grouped_linear(x, weight, rows.offsets, axis);
}

// [n_rows, width], each row with its expert's bias.
at::Tensor project(const at::Tensor& x, const Linear& linear, const ExpertPass& pass) {
  const auto& rows = pass.rows;
  const auto y = product(x, linear, rows, ExpertAxis::kRows);
  if (!linear->bias.defined()) return y;
  const auto biases = linear->bias.to(x.scalar_type()).view({pass.experts.n_experts, -1});
  const auto expert = rows.ends.defined() ? rows.expert_of_row.clamp_min(0) : rows.expert_of_row;
  return y + biases.index_select(0, expert);
}

class GroupedBackend final : public RowBackend {
 public:
  bool needs_host_sync(const at::Tensor&) const override { return true; }
  void list(ExpertPass& pass, const at::Tensor&) const override {
    pass.rows = list_on_host(pass.choice.selected, pass.choice.expert_weights);
  }
};

}  // namespace

Hidden RowBackend::hidden(const ExpertPass& pass, const at::Tensor& x) const {
  const auto& experts = pass.experts;
  const auto x_rows = dispatch_rows(x.contiguous(), pass.rows);  // [n_rows, d_model]
  const auto gate = experts.gate.is_empty() ? at::Tensor() : project(x_rows, experts.gate, pass);
  return {project(x_rows, experts.up, pass), gate};
}

at::Tensor RowBackend::sum(const ExpertPass& pass, const Hidden& hidden) const {
  const auto& [experts, policy, choice, role, rows] = pass;
  const auto weights = rows.weight_of_row.unsqueeze(1);
  const bool plain = experts.activation == Activation::kIdentity && !rows.ends.defined();
  const auto weighted =
      plain ? hidden.values * weights.to(hidden.values.scalar_type())
            : weighted_activation(experts.activation, hidden.values, hidden.gate, weights);
  return combine_rows(
      product(weighted, experts.down, rows, ExpertAxis::kColumns), rows, experts.down->bias);
}

const ExpertBackend& grouped_backend() {
  static const GroupedBackend backend;
  return backend;
}

}  // namespace dsmoe
