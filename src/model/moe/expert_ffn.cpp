#include "model/moe/expert_ffn.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/zeros.h>

#include "csrc_kernels/expert_gemv/expert_gemv.h"
#include "csrc_kernels/grouped_linear/grouped_linear.h"
#include "csrc_kernels/weighted_activation/weighted_activation.h"
#include "model/moe/device_rows.h"

namespace dsmoe {
ExpertFfnImpl::ExpertFfnImpl(int64_t d_model,
                             int64_t n_experts,
                             int64_t d_expert,
                             Activation activation,
                             Biases biases)
    : d_model_(d_model), n_experts_(n_experts), d_expert_(d_expert), activation_(activation) {
  const int64_t d_wide = n_experts * d_expert;
  const bool inner = biases == Biases::kAll;
  up_proj_ = register_module("up_proj", Linear(d_model, d_wide, inner));
  if (activation == Activation::kSwiglu) {
    gate_proj_ = register_module("gate_proj", Linear(d_model, d_wide, inner));
  }
  down_proj_ = register_module("down_proj", Linear(d_wide, d_model, biases != Biases::kNone));
}

at::Tensor ExpertFfnImpl::run_wide(const at::Tensor& x, const at::Tensor& expert_weights) {
  const auto y = weighted_activation_linear(activation_,
                                            up_proj_(x),
                                            gate_proj_.is_empty() ? at::Tensor() : gate_proj_(x),
                                            expert_weights,
                                            down_proj_->weight_as(x.scalar_type()));
  return down_proj_->bias.defined() ? y + down_proj_->bias.to(x.scalar_type()) : y;
}

at::Tensor ExpertFfnImpl::forward(const at::Tensor& x) {
  if (!runs_packed()) return run_wide(x, {});
  TORCH_CHECK(n_experts_ == 1, "ExpertFfn: expected experts of a packed mixture to be selected");
  return forward_packed(x, {.token_of_row = {}, .weight_of_row = {}, .offsets = {0, x.size(0)}});
}

at::Tensor ExpertFfnImpl::forward_dense(const at::Tensor& x, const at::Tensor& expert_weights) {
  return run_wide(x, expert_weights.contiguous());
}

bool ExpertFfnImpl::runs_few(const at::Tensor& x) const {
  return !at::GradMode::is_enabled() && x.size(0) >= 1 && x.size(0) <= kMostGemvTokens &&
         has_expert_gemv(x);
}

at::Tensor ExpertFfnImpl::forward_sparse(const at::Tensor& x, const ExpertSelection& selection) {
  if (runs_few(x)) return forward_few(x.contiguous(), selection.expert_weights.contiguous());
  if (runs_routed(x, selection)) return forward_routed(x.contiguous(), selection);
  return forward_sparse(x, make_dispatch(selection));
}

bool ExpertFfnImpl::runs_routed(const at::Tensor& x, const ExpertSelection& selection) const {
  return lists_on_device(x, selection) && takes_ends(x.scalar_type(), d_model_, d_expert_);
}

bool ExpertFfnImpl::runs_without_waiting(const at::Tensor& x) const {
  if (runs_few(x)) return true;
  // Other types and GPUs wait inside the grouped product.
  const bool has_product = x.is_cuda() && x.scalar_type() == at::kBFloat16;
  return has_product && runs_routed(x, {});
}

at::Tensor ExpertFfnImpl::forward_routed(const at::Tensor& x, const ExpertSelection& selection) {
  const auto dtype = x.scalar_type();
  const auto rows = list_selected(selection);
  const auto x_rows = dispatch_rows(x, rows);  // [max_rows, d_model]
  const auto project = [&](Linear& linear) {
    auto y = grouped_linear_by_ends(x_rows, linear->weight_as(dtype), rows.ends, ExpertAxis::kRows);
    if (!linear->bias.defined()) return y;
    const auto bias = linear->bias.to(dtype).view({n_experts_, d_expert_});
    return y + bias.index_select(0, rows.expert_of_row.clamp_min(0));
  };
  const auto hidden =
      weighted_activation(activation_,
                          project(up_proj_),
                          gate_proj_.is_empty() ? at::Tensor() : project(gate_proj_),
                          gather_weights(selection.expert_weights, rows).unsqueeze(1));
  const auto y_rows =
      grouped_linear_by_ends(hidden, down_proj_->weight_as(dtype), rows.ends, ExpertAxis::kColumns);
  const auto y = combine_rows(y_rows, rows);  // [n_tokens, d_model]
  return down_proj_->bias.defined() ? y + down_proj_->bias.to(dtype) : y;
}

at::Tensor ExpertFfnImpl::forward_few(const at::Tensor& x, const at::Tensor& expert_weights) {
  const auto wide = [&](Linear& linear) {
    return linear.is_empty() ? WideLinear{}
                             : WideLinear{linear->weight_as(x.scalar_type()), linear->bias};
  };
  const auto hidden = expert_gemv_hidden(x,
                                         activation_,
                                         wide(up_proj_),
                                         wide(gate_proj_),
                                         expert_weights,
                                         /*weighted=*/true);  // [n_tokens, n_experts * d_expert]
  return expert_gemv_sum(hidden, wide(down_proj_), expert_weights, /*weighted=*/false);
}

at::Tensor ExpertFfnImpl::forward_sparse(const at::Tensor& x, const ExpertDispatch& dispatch) {
  const auto dtype = x.scalar_type();
  const auto rows = x.index_select(0, dispatch.token_of_row);  // [n_rows, d_model]
  const auto project = [&](Linear& linear) {
    auto y = grouped_linear(rows, linear->weight_as(dtype), dispatch.offsets, ExpertAxis::kRows);
    if (!linear->bias.defined()) return y;
    const auto bias = linear->bias.to(dtype).view({n_experts_, d_expert_});
    return y + bias.index_select(0, dispatch.expert_of_row);
  };
  const auto hidden_rows =
      weighted_activation(activation_,
                          project(up_proj_),
                          gate_proj_.is_empty() ? at::Tensor() : project(gate_proj_),
                          dispatch.weight_of_row.unsqueeze(1));  // [n_rows, d_expert]
  const auto y_rows = at_least_float32(grouped_linear(
      hidden_rows, down_proj_->weight_as(dtype), dispatch.offsets, ExpertAxis::kColumns));
  // Summed in float32, as the wide product sums inside.
  auto y = at::zeros({x.size(0), x.size(1)}, y_rows.options())
               .index_add(0, dispatch.token_of_row, y_rows);  // [n_tokens, d_model]
  if (down_proj_->bias.defined()) y = y + down_proj_->bias;
  return y.to(dtype);
}

int64_t ExpertFfnImpl::parameters_per_expert() const {
  const int64_t n_matrices = gate_proj_.is_empty() ? 2 : 3;
  return n_matrices * d_model_ * d_expert_;
}

void ExpertFfnImpl::pack(const PackOptions& options) {
  up_proj_->pack(options, n_experts_);
  if (!gate_proj_.is_empty()) gate_proj_->pack(options, n_experts_);
  down_proj_->pack(options, n_experts_, ExpertAxis::kColumns);
}

at::Tensor ExpertFfnImpl::forward_packed(const at::Tensor& x, const ExpertPairs& pairs) {
  const ExpertInput input{.up = up_proj_->packed(),
                          .gate = gate_proj_.is_empty() ? PackedLinear{} : gate_proj_->packed(),
                          .activation = activation_};
  const auto hidden = expert_hidden(x.contiguous(), pairs, input);  // [n_rows, d_expert]
  return expert_sum(hidden, pairs, down_proj_->packed(), x.size(0));
}

}  // namespace dsmoe
