#pragma once

#include <ATen/core/Tensor.h>

#include "model/transformer.h"

namespace dsmoe {

/// Floating-point operations of one training token with every expert active: 6 per weight of a
/// matrix product (forward 2, backward 4) and 6 * seq_len * width per layer for causal attention,
/// where width is n_heads * head_dim over all experts.
double train_flops_per_token(const Transformer& model, int64_t seq_len);

/// Matrix speed of this process now, operations per second: the best of some square products of
/// 1024, a tenth of a second in all.
double measure_matrix_speed(at::ScalarType dtype);

}  // namespace dsmoe
