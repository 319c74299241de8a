#pragma once

#include <ATen/core/Tensor.h>

namespace dsmoe {

/// Mean cross entropy of features * head_weight^T. Only the logits of one chunk of rows are in
/// memory; their gradient overwrites them.
///
/// features     [n_rows, d_model], float32, bfloat16 or float64
/// head_weight  [vocab_size, d_model], the weight that receives the gradient
/// head_copy    the same numbers in the type of features, for the GEMMs; may be head_weight
/// targets      [n_rows] int64 in 0 .. vocab_size
/// returns      a scalar, float32 (float64 for float64), nats
/// Gradients reach features and head_weight; the forward pass computes them if an input requires
/// them, and the backward pass scales them.
/// Throws c10::Error if shapes or types disagree or a target is outside the vocabulary. On another
/// device, without a host sync, such a target makes the loss NaN.
at::Tensor linear_cross_entropy(const at::Tensor& features,
                                const at::Tensor& head_weight,
                                const at::Tensor& head_copy,
                                const at::Tensor& targets);

/// Reference implementation in differentiable ATen calls, with all logits at once.
at::Tensor linear_cross_entropy_ref(const at::Tensor& features,
                                    const at::Tensor& head_weight,
                                    const at::Tensor& targets);

}  // namespace dsmoe
