#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "csrc_kernels/packed_linear/packed_linear.h"
#include "csrc_kernels/weighted_activation/kernels.h"

namespace dsmoe {

/// The pairs of a token and an expert to compute, sorted by expert, then by token.
struct ExpertPairs {
  at::Tensor token_of_row;       // [n_rows] int64, or undefined: row i is token i
  at::Tensor weight_of_row;      // [n_rows] float32, or undefined: all ones
  std::vector<int64_t> offsets;  // n_experts + 1: rows offsets[e] .. offsets[e + 1] are expert e's
};

/// What enters the experts of a layer: biases [n_experts * d_out] float32, or undefined.
struct ExpertInput {
  PackedLinear up;
  PackedLinear gate{};  // for kSwiglu only
  Activation activation = Activation::kIdentity;
};

/// Each pair's weight * act(up x, gate x), in one parallel region over (expert, panel of outputs);
/// no gradient.
///
/// x        [n_tokens, d_in], float32 or bfloat16, contiguous
/// returns  [n_rows, d_out] in the type of x
/// A pair's result does not depend on the other pairs. Throws c10::Error if shapes or types
/// disagree. Source: arXiv:2404.05567, section 3.2.
at::Tensor expert_hidden(const at::Tensor& x, const ExpertPairs& pairs, const ExpertInput& input);

/// For each token the sum over its pairs of hidden * down^T, plus the bias once, in one parallel
/// region over panels of outputs; no gradient.
///
/// hidden   [n_rows, d_in], float32 or bfloat16, contiguous
/// down     bias [d_out] float32, or undefined
/// returns  [n_tokens, d_out] in the type of hidden
/// Experts are summed in float32 in ascending order: a token's result does not depend on the other
/// tokens, and a pair whose hidden row is zero changes nothing. The pairs' weights are not used.
at::Tensor expert_sum(const at::Tensor& hidden,
                      const ExpertPairs& pairs,
                      const PackedLinear& down,
                      int64_t n_tokens);

/// The definitions of right, of ATen calls on the unpacked weights, in float64 inside.
at::Tensor expert_hidden_ref(const at::Tensor& x,
                             const ExpertPairs& pairs,
                             const ExpertInput& input);
at::Tensor expert_sum_ref(const at::Tensor& hidden,
                          const ExpertPairs& pairs,
                          const PackedLinear& down,
                          int64_t n_tokens);

}  // namespace dsmoe
