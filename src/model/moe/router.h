#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include "model/linear.h"
#include "model/model_config.h"

namespace dsmoe {

/// Router output per token.
struct RouterOutput {
  at::Tensor router_logits;  // [batch, seq, n_experts], float32
  at::Tensor router_probs;   // [batch, seq, n_experts], float32, under softmax rows sum to 1
};

/// Computes the probability of every expert: a softmax over all experts or a sigmoid per expert,
/// without noise and before any selection.
///
/// A hidden layer, if the row of kRouterKinds has one, and a matrix; no biases. The last
/// matrix and its activation run in float32, the hidden layer in the type of x; float64 throughout
/// for float64. Source: arXiv:2404.05567, section 3.1, equation 1 (softmax); arXiv:2502.12455,
/// equation 7 (sigmoid).
class RouterImpl : public torch::nn::Module {
 public:
  RouterImpl(int64_t d_model,
             int64_t n_experts,
             const RouterConfig& config,
             RouterActivation activation = RouterActivation::kSoftmax);

  /// x [batch, seq, d_model], in the compute dtype
  RouterOutput forward(const at::Tensor& x);

  /// Packs the hidden layer in bfloat16 or wider and the rest in float32; keeps the originals.
  void pack(const PackOptions& options);

 private:
  RouterOutput forward_packed(const at::Tensor& x);

  int64_t d_model_;
  Activation hidden_;
  RouterActivation activation_;
  Linear gate_proj_{nullptr};  // SwiGLU only, [d_hidden, d_model]
  Linear up_proj_{nullptr};    // hidden layer only, [d_hidden, d_model]
  Linear out_proj_{nullptr};   // [n_experts, d_model] or [n_experts, d_hidden]
  ComputeCopy hidden_copy_;    // of gate_proj over up_proj
};
TORCH_MODULE(Router);

}  // namespace dsmoe
