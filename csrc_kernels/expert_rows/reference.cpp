#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/zeros.h>

#include "csrc_kernels/expert_rows/expert_rows.h"
#include "csrc_kernels/weighted_activation/weighted_activation.h"

namespace dsmoe {
namespace {

// Each row times its expert's block.
at::Tensor by_expert(const at::Tensor& x, const Dispatch& dispatch, const PackedMatrix& matrix) {
  const auto blocks = unpack_matrix(matrix).to(at::kDouble).chunk(matrix.shape.n_experts, 0);
  std::vector<at::Tensor> rows;
  for (size_t e = 0; e < blocks.size(); ++e) {
    rows.push_back(at::linear(x.slice(0, dispatch.offsets[e], dispatch.offsets[e + 1]), blocks[e]));
  }
  return at::cat(rows, 0);
}

at::Tensor with_bias(at::Tensor rows, const Dispatch& dispatch, const PackedLinear& linear) {
  if (!linear.bias.defined()) return rows;
  const auto biases = linear.bias.to(at::kDouble).view({linear.weight.shape.n_experts, -1});
  for (int64_t e = 0; e < biases.size(0); ++e) {
    const auto at = static_cast<size_t>(e);
    rows.slice(0, dispatch.offsets[at], dispatch.offsets[at + 1]) += biases[e];
  }
  return rows;
}

}  // namespace

at::Tensor expert_hidden_ref(const at::Tensor& x,
                             const Dispatch& dispatch,
                             const ExpertInput& input) {
  const auto& tokens = dispatch.token_of_row;
  const auto wide = x.to(at::kDouble);
  const auto rows = tokens.defined() ? wide.index_select(0, tokens) : wide;
  const auto side = [&](const PackedLinear& linear) {
    return with_bias(by_expert(rows, dispatch, linear.weight), dispatch, linear);
  };
  const bool gated = input.activation == Activation::kSwiglu;
  const auto hidden = weighted_activation_ref(
      input.activation, side(input.up), gated ? side(input.gate) : at::Tensor(), {});
  const auto& weights = dispatch.weight_of_row;
  return (weights.defined() ? hidden * weights.to(at::kDouble).unsqueeze(1) : hidden)
      .to(x.scalar_type());
}

at::Tensor expert_sum_ref(const at::Tensor& hidden,
                          const Dispatch& dispatch,
                          const PackedLinear& down) {
  const auto rows = by_expert(hidden.to(at::kDouble), dispatch, down.weight);
  const auto y = at::zeros({dispatch.n_tokens, rows.size(1)}, rows.options())
                     .index_add(0, dispatch.token_of_row, rows);
  return (down.bias.defined() ? y + down.bias.to(at::kDouble) : y).to(hidden.scalar_type());
}

}  // namespace dsmoe
