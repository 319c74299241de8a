#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include "model/experts/expert_ffn.h"
#include "model/model_config.h"
#include "model/moe/moe_output.h"
#include "model/moe/router.h"
#include "model/moe/routing_policy.h"

namespace dsmoe {

/// arXiv:2404.05567 (DS-MoE): FFN experts mixed by a softmax over all of them. Trained with every
/// expert active; the same weights and probabilities then run with the selected experts only.
class DSMoELayerImpl : public torch::nn::Module {
 public:
  DSMoELayerImpl(int64_t d_model, const FfnConfig& config, Biases biases);

  /// x [batch, seq, d_model], in the compute dtype, as is y; router logits are float32
  /// Gradients reach every selected expert and, through their weights, the router.
  MoeOutput forward(const at::Tensor& x, const RoutingPolicy& policy);

  Router router{nullptr};
  ExpertFfn experts{nullptr};

 private:
  bool renormalise_;
};
TORCH_MODULE(DSMoELayer);

}  // namespace dsmoe
