#include "model/moe/expert_ffn.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/zeros.h>

#include "csrc_kernels/moe/grouped_linear.h"

namespace dsmoe {
namespace {

// up: pre-activation; gate: its SwiGLU partner, undefined for the others.
at::Tensor activate(FfnActivation activation, const at::Tensor& up, const at::Tensor& gate) {
  switch (activation) {
    case FfnActivation::kGelu:
      return at::gelu(up);
    case FfnActivation::kGeluTanh:
      return at::gelu(up, "tanh");
    case FfnActivation::kSwiglu:
      return at::silu(gate) * up;
  }
  TORCH_CHECK(false, "ExpertFfn: unknown activation");
}

}  // namespace

ExpertFfnImpl::ExpertFfnImpl(int64_t d_model,
                             int64_t n_experts,
                             int64_t d_expert,
                             FfnActivation activation,
                             bool bias)
    : n_experts_(n_experts), d_expert_(d_expert), activation_(activation) {
  const int64_t d_wide = n_experts * d_expert;
  up_proj_ = register_module("up_proj", Linear(d_model, d_wide, bias));
  if (activation == FfnActivation::kSwiglu) {
    gate_proj_ = register_module("gate_proj", Linear(d_model, d_wide, bias));
  }
  down_proj_ = register_module("down_proj", Linear(d_wide, d_model, bias));
}

at::Tensor ExpertFfnImpl::hidden(const at::Tensor& x) {
  return activate(activation_, up_proj_(x), gate_proj_.is_empty() ? at::Tensor() : gate_proj_(x));
}

at::Tensor ExpertFfnImpl::forward(const at::Tensor& x) { return down_proj_(hidden(x)); }

at::Tensor ExpertFfnImpl::forward_dense(const at::Tensor& x, const at::Tensor& expert_weights) {
  const int64_t n_tokens = x.size(0);
  const auto weights = expert_weights.to(x.scalar_type()).unsqueeze(2);  // [n_tokens, n_experts, 1]
  // [n_tokens, n_experts * d_expert] -> [n_tokens, n_experts, d_expert] and back
  const auto weighted = hidden(x).view({n_tokens, n_experts_, d_expert_}) * weights;
  return down_proj_(weighted.view({n_tokens, n_experts_ * d_expert_}));
}

at::Tensor ExpertFfnImpl::forward_sparse(const at::Tensor& x, const ExpertDispatch& dispatch) {
  const auto dtype = x.scalar_type();
  const auto rows = x.index_select(0, dispatch.token_of_row);  // [n_rows, d_model]
  const auto project = [&](Linear& linear) {
    auto y = grouped_linear(rows, linear->weight.to(dtype), dispatch.offsets, ExpertAxis::kRows);
    if (!linear->bias.defined()) return y;
    const auto bias = linear->bias.to(dtype).view({n_experts_, d_expert_});
    return y + bias.index_select(0, dispatch.expert_of_row);
  };
  const auto hidden_rows = activate(activation_,
                                    project(up_proj_),
                                    gate_proj_.is_empty() ? at::Tensor() : project(gate_proj_)) *
                           dispatch.weight_of_row.to(dtype).unsqueeze(1);  // [n_rows, d_expert]
  const auto y_rows = at_least_float32(grouped_linear(
      hidden_rows, down_proj_->weight.to(dtype), dispatch.offsets, ExpertAxis::kColumns));
  // Summed in float32, as the wide product sums inside.
  auto y = at::zeros({x.size(0), x.size(1)}, y_rows.options())
               .index_add(0, dispatch.token_of_row, y_rows);  // [n_tokens, d_model]
  if (down_proj_->bias.defined()) y = y + down_proj_->bias;
  return y.to(dtype);
}

int64_t ExpertFfnImpl::parameters_per_expert() const {
  const int64_t n_matrices = gate_proj_.is_empty() ? 2 : 3;
  return n_matrices * up_proj_->weight.numel() / n_experts_;
}

}  // namespace dsmoe
