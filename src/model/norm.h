#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include "model/model_config.h"

namespace dsmoe {

/// RMSNorm or LayerNorm over the last dimension, in float32.
///
/// x        [..., d_model]
/// returns  [..., d_model], float32 (float64 for float64)
class NormImpl : public torch::nn::Module {
 public:
  NormImpl(NormKind kind, int64_t d_model, double eps, bool bias);
  at::Tensor forward(const at::Tensor& x);

  at::Tensor weight;  // [d_model]
  at::Tensor bias;    // [d_model], or undefined

 private:
  NormKind kind_;
  double eps_;
};
TORCH_MODULE(Norm);

}  // namespace dsmoe
