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

/// A dense FFN cut into blocks along its width, each with a sigmoid gate (DSMoE, arXiv:2502.12455).
/// A gate above the threshold of the policy opens its expert for the token. The output is the sum
/// of the open experts weighted by their gates, times n_experts / number of open gates.
///
/// Trained with threshold selection and dense execution, at the cost of one dense FFN and one
/// element-wise product; `all` is the training without threshold (equation 20).
///
/// With softmax gates and top_k it is the layer of LLaMA-MoE (arXiv:2406.16554, the paper's
/// baseline): softmax over the k strongest logits, times n_experts / k; without the gate noise that
/// LLaMA-MoE adds in training.
class PartitionedMoELayerImpl : public torch::nn::Module {
 public:
  PartitionedMoELayerImpl(int64_t d_model, const FfnConfig& config, Biases biases);

  /// x, y [batch, seq, d_model] in the compute dtype; gates are float32. The weights of a closed
  /// expert get no gradient. Its gate gets one under the straight-through estimator (equations 10
  /// to 16). The estimator needs dense execution: throws c10::Error for sparse execution with
  /// gradients. The number of open gates is a constant to the gradient.
  MoeOutput forward(const at::Tensor& x, const RoutingPolicy& policy);

  Router router{nullptr};
  ExpertFfn experts{nullptr};
  /// Debug switch: sets every gate to 1, so that the layer equals the dense FFN that it was cut
  /// from.
  bool gates_forced_to_one = false;

 private:
  RoutingRule rule_of(const RoutingPolicy& policy, int64_t n_experts) const;

  PartitionConfig config_;
};
TORCH_MODULE(PartitionedMoELayer);

}  // namespace dsmoe
