#pragma once

#include <ATen/core/Tensor.h>

#include "csrc_kernels/dispatch/dispatch.h"
#include "csrc_kernels/packed_linear/packed_linear.h"
#include "csrc_kernels/weighted_activation/kernels.h"

namespace dsmoe {

/// What enters the experts of a layer: biases [n_experts * d_out] float32, or undefined.
struct ExpertInput {
  PackedLinear up;
  PackedLinear gate{};  // for kSwiglu only
  Activation activation = Activation::kIdentity;
};

/// Each row's weight * act(up x, gate x), in one parallel region over (expert, panel of outputs);
/// no gradient.
///
/// x        [n_tokens, d_in], float32 or bfloat16, contiguous
/// dispatch listed on the host
/// returns  [n_rows, d_out] in the type of x
/// A row's result does not depend on the other rows. Throws c10::Error if shapes or types
/// disagree. Source: arXiv:2404.05567, section 3.2.
at::Tensor expert_hidden(const at::Tensor& x, const Dispatch& dispatch, const ExpertInput& input);

/// For each token the sum over its rows of hidden * down^T, plus the bias once, in one parallel
/// region over panels of outputs; no gradient.
///
/// hidden   [n_rows, d_in], float32 or bfloat16, contiguous
/// down     bias [d_out] float32, or undefined
/// returns  [n_tokens, d_out] in the type of hidden
/// Experts are summed in float32 in ascending order: a token's result does not depend on the other
/// tokens, and a hidden row of zeros changes nothing. The rows' weights are not used.
at::Tensor expert_sum(const at::Tensor& hidden, const Dispatch& dispatch, const PackedLinear& down);

/// Reference implementations of ATen calls on the unpacked weights, in float64 inside.
at::Tensor expert_hidden_ref(const at::Tensor& x,
                             const Dispatch& dispatch,
                             const ExpertInput& input);
at::Tensor expert_sum_ref(const at::Tensor& hidden,
                          const Dispatch& dispatch,
                          const PackedLinear& down);

}  // namespace dsmoe
