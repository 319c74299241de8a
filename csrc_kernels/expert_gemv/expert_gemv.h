#pragma once

#include <ATen/core/Tensor.h>

#include "csrc_kernels/expert_gemv/kernels.h"

namespace dsmoe {

/// A wide weight of experts as it is stored, and its bias [rows] float32, or undefined.
struct WideLinear {
  at::Tensor weight;
  at::Tensor bias;
};

/// Experts of a handful of tokens, of which only the matrices are read that some token selected;
/// every shape is known before the device has chosen, so that a CUDA graph can record it. No
/// gradient.
///
/// x               [n_tokens, d_in], float32 or bfloat16, contiguous, n_tokens <= kMostGemvTokens
/// up, gate        [n_experts * F, d_in] in the type of x; gate for kSwiglu only
/// expert_weights  [n_tokens, n_experts] float32, contiguous, zero where not selected; for
///                 expert_gemv_hidden undefined too: one expert, selected with weight 1
/// weighted        the result is multiplied by the expert's weight
/// returns         act(up x, gate x), [n_tokens, n_experts * F] in the type of x; exact zeros where
///                 the weight is zero
/// Throws c10::Error if shapes or types disagree. Source: arXiv:2404.05567, section 3.2.
at::Tensor expert_gemv_hidden(const at::Tensor& x,
                              Activation activation,
                              const WideLinear& up,
                              const WideLinear& gate,
                              const at::Tensor& expert_weights,
                              bool weighted);

/// The sum over the experts with a weight of hidden * down^T, summed in float32.
///
/// hidden    [n_tokens, n_experts * F], contiguous, zero where the expert's weight is zero
/// down      [d_out, n_experts * F] in the type of hidden; its bias [d_out] is added once
/// weighted  each expert's part is multiplied by its weight
/// returns   [n_tokens, d_out] in the type of hidden
at::Tensor expert_gemv_sum(const at::Tensor& hidden,
                           const WideLinear& down,
                           const at::Tensor& expert_weights,
                           bool weighted);

/// Whether expert_gemv_hidden and expert_gemv_sum have kernels for x.
bool has_expert_gemv(const at::Tensor& x);
/// Whether they serve this pass: there are kernels, few enough rows of x, and no gradient is
/// wanted.
bool serves_expert_gemv(const at::Tensor& x);

/// Reference implementations of ATen calls.
at::Tensor expert_gemv_hidden_ref(const at::Tensor& x,
                                  Activation activation,
                                  const WideLinear& up,
                                  const WideLinear& gate,
                                  const at::Tensor& expert_weights,
                                  bool weighted);
at::Tensor expert_gemv_sum_ref(const at::Tensor& hidden,
                               const WideLinear& down,
                               const at::Tensor& expert_weights,
                               bool weighted);

}  // namespace dsmoe
