#pragma once

#include <ATen/core/Tensor.h>

namespace dsmoe {

/// Mean cross entropy of features * head_weight^T, without ever holding the logits of more than a
/// chunk of rows: each chunk's gradient is made where its logits are.
///
/// features     [n_rows, d_model], float32, bfloat16 or float64
/// head_weight  [vocab_size, d_model], the weight that collects the gradient
/// head_copy    the same numbers in the type of features, what the products use; may be head_weight
/// targets      [n_rows] int64 in 0 .. vocab_size
/// returns      a scalar, float32 (float64 for float64), nats
/// Gradients reach features and head_weight; they are computed in the forward pass when asked for,
/// and scaled in the backward pass.
/// Throws c10::Error if shapes or types disagree or a target is outside the vocabulary; on another
/// device, which is not waited for, such a target makes the loss NaN.
at::Tensor linear_cross_entropy(const at::Tensor& features,
                                const at::Tensor& head_weight,
                                const at::Tensor& head_copy,
                                const at::Tensor& targets);

/// Reference implementation in differentiable ATen calls, with all logits at once.
at::Tensor linear_cross_entropy_ref(const at::Tensor& features,
                                    const at::Tensor& head_weight,
                                    const at::Tensor& targets);

}  // namespace dsmoe
