#pragma once

#include <ATen/core/Tensor.h>

#include "csrc_kernels/weighted_activation/kernels.h"

namespace dsmoe {

/// The inside of expert FFNs in the wide form: hidden = (weights repeated F times) * act(up, gate).
///
/// up              [n_rows, n_experts * F], pre-activation, contiguous
/// gate            the same shape and type for kSwiglu (act = silu(gate) * up), else undefined
/// expert_weights  [n_rows, n_experts], float32 (float64 for float64); undefined: all ones
/// returns         [n_rows, n_experts * F]
/// Gradients reach up, gate and expert_weights; only the arguments are kept for them.
/// Throws c10::Error if shapes or types disagree. Source: arXiv:2404.05567, section 3.2.
at::Tensor weighted_activation(Activation activation,
                               const at::Tensor& up,
                               const at::Tensor& gate,
                               const at::Tensor& expert_weights);

/// weighted_activation followed by the down projection, hidden * down_weight^T, without keeping
/// hidden: the backward pass computes it again where it computes the slope of the activation.
///
/// down_weight  [d_out, n_experts * F], the type of up
/// returns      [n_rows, d_out]
at::Tensor weighted_activation_linear(Activation activation,
                                      const at::Tensor& up,
                                      const at::Tensor& gate,
                                      const at::Tensor& expert_weights,
                                      const at::Tensor& down_weight);

/// Reference implementation, of differentiable ATen calls.
at::Tensor weighted_activation_ref(Activation activation,
                                   const at::Tensor& up,
                                   const at::Tensor& gate,
                                   const at::Tensor& expert_weights);

}  // namespace dsmoe
