#pragma once

#include <ATen/core/Tensor.h>

namespace dsmoe {

/// Softmax of each row, or the sigmoid of each number; no gradient.
///
/// logits [n_tokens, n_experts] float32, contiguous
/// A row's bits do not depend on the other rows; those of ATen's vectorised softmax and sigmoid do.
at::Tensor router_probs(const at::Tensor& logits, bool sigmoid);

}  // namespace dsmoe
