#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

namespace dsmoe {

/// Converts to float32 for arithmetic that bfloat16 would spoil; float64 stays as it is.
at::Tensor at_least_float32(const at::Tensor& x);

/// y = x W^T + b in the dtype of x; the stored weight may be wider and is cast for the call.
///
/// x        [..., d_in]
/// returns  [..., d_out]
class LinearImpl : public torch::nn::Module {
 public:
  LinearImpl(int64_t d_in, int64_t d_out, bool bias);
  at::Tensor forward(const at::Tensor& x);

  at::Tensor weight;  // [d_out, d_in]
  at::Tensor bias;    // [d_out], or undefined
};
TORCH_MODULE(Linear);

}  // namespace dsmoe
