#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <vector>

#include "csrc_kernels/packed_linear/packed_linear.h"
#include "model/compute_copy.h"
#include "model/packed_weights.h"

namespace dsmoe {

/// Converts to float32 for arithmetic that needs more precision than bfloat16; float64 stays as it
/// is.
at::Tensor at_least_float32(const at::Tensor& x);

/// y = x W^T + b in the dtype of x; the stored weight may be wider.
///
/// x        [..., d_in]
/// returns  [..., d_out]
class LinearImpl : public torch::nn::Module {
 public:
  LinearImpl(int64_t d_in, int64_t d_out, bool bias);
  at::Tensor forward(const at::Tensor& x);

  /// Returns the weight for products of type `dtype`, with gradient to the stored weight. Throws
  /// c10::Error if packing freed the stored weight.
  at::Tensor weight_as(at::ScalarType dtype);

  /// Packs the weight for inference, cut into experts as pack_matrix does.
  void pack(const PackOptions& options, int64_t n_experts = 1, ExpertAxis axis = ExpertAxis::kRows);
  /// True if this pass uses the packed weight: there is one and no gradient is recorded.
  bool runs_packed() const;
  PackedLinear packed() const { return {packed_weight, bias}; }

  at::Tensor weight;           // [d_out, d_in], or empty
  at::Tensor bias;             // [d_out], or undefined
  ComputeCopy copy;            // of weight
  PackedMatrix packed_weight;  // or undefined
};
TORCH_MODULE(Linear);

/// Applies several layers to one input; packed layers share one parallel region.
std::vector<at::Tensor> project_together(const at::Tensor& x, const std::vector<Linear>& layers);

}  // namespace dsmoe
