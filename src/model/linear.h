#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include "model/compute_copy.h"

namespace dsmoe {

/// Converts to float32 for arithmetic that bfloat16 would spoil; float64 stays as it is.
at::Tensor at_least_float32(const at::Tensor& x);

/// y = x W^T + b in the dtype of x; the stored weight may be wider.
///
/// x        [..., d_in]
/// returns  [..., d_out]
class LinearImpl : public torch::nn::Module {
 public:
  LinearImpl(int64_t d_in, int64_t d_out, bool bias);
  at::Tensor forward(const at::Tensor& x);

  /// The weight for products of type `dtype`, with gradient to the stored one.
  at::Tensor weight_as(at::ScalarType dtype) { return copy.differentiable(weight, dtype); }

  at::Tensor weight;  // [d_out, d_in]
  at::Tensor bias;    // [d_out], or undefined
  ComputeCopy copy;   // of weight
};
TORCH_MODULE(Linear);

}  // namespace dsmoe
