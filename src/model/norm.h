#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include "csrc_kernels/residual_norm/residual_norm.h"
#include "model/model_config.h"

namespace dsmoe {

/// The residual stream between half blocks: the sum so far, and the pending output of the last half
/// block. The next norm adds the pending output.
struct ResidualStream {
  at::Tensor sum;      // [batch, seq, d_model], float32 (float64 for float64)
  at::Tensor pending;  // the same shape in the compute dtype, or undefined
};

/// RMSNorm or LayerNorm over the last dimension, computed in the type of the stream.
class NormImpl : public torch::nn::Module {
 public:
  NormImpl(NormKind kind, int64_t d_model, double eps, bool bias);

  /// Sums the stream and normalises it; normed has type `dtype`.
  ResidualNormOutput forward(const ResidualStream& stream, at::ScalarType dtype);

  at::Tensor weight;  // [d_model]
  at::Tensor bias;    // [d_model], or undefined

 private:
  NormKind kind_;
  double eps_;
};
TORCH_MODULE(Norm);

}  // namespace dsmoe
