#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "csrc_kernels/packed_linear/packed_matrix.h"

namespace dsmoe {

struct PackedLinear {
  PackedMatrix weight;  // of one expert
  at::Tensor bias{};    // [d_out] float32, or undefined
};

/// y = x W^T + b for several weights of one input, in one parallel region; no gradient.
///
/// x        [..., d_in], float32 or bfloat16, contiguous
/// type     of the results: float32 or bfloat16
/// returns  [..., d_out] for each weight
/// Sums are float32 and run along d_in in one order for any number of rows and threads: the result
/// of a row does not depend on the other rows. Throws c10::Error if shapes or types disagree.
std::vector<at::Tensor> packed_linear(const at::Tensor& x,
                                      const std::vector<PackedLinear>& weights,
                                      at::ScalarType type);

/// Reference implementation in ATen calls on the unpacked weight.
at::Tensor packed_linear_ref(const at::Tensor& x, const PackedLinear& weight, at::ScalarType type);

}  // namespace dsmoe
