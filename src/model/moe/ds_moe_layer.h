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

/// FFN experts mixed by a softmax over all of them (DS-MoE, arXiv:2404.05567). Training activates
/// every expert; inference uses the same weights and probabilities with only the selected experts.
class DSMoELayerImpl : public torch::nn::Module {
 public:
  DSMoELayerImpl(int64_t d_model, const FfnConfig& config, Biases biases);

  /// x, y [batch, seq, d_model] in the compute dtype; router logits are float32. Gradients reach
  /// every selected expert and, through the expert weights, the router.
  MoeOutput forward(const at::Tensor& x, const RoutingPolicy& policy);

  Router router{nullptr};
  ExpertFfn experts{nullptr};

 private:
  bool renormalise_;
};
TORCH_MODULE(DSMoELayer);

}  // namespace dsmoe
