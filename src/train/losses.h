#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "model/model_output.h"
#include "train/train_config.h"

namespace dsmoe {

/// Scalars, float32. Router terms are sums over layers, before their weights; undefined where the
/// model has no experts of that kind. The mutual information is computed even with weight 0, then
/// without gradient, and so is sparsity; balance and z only with a weight. Mutual information
/// and z belong to softmax routers.
struct LossTerms {
  at::Tensor total;  // what backward starts from
  at::Tensor lm;     // mean cross entropy per token, nats
  at::Tensor moe_mi;
  at::Tensor moa_mi;
  at::Tensor sparsity;  // of sigmoid routers only, the mean over layers
  at::Tensor balance;   // switch loss over both kinds
  at::Tensor z;
};

/// Mean router probabilities of every layer over all tokens of a step: what the global
/// mutual-information loss needs. Empty lists: local scope.
struct StepRouting {
  std::vector<at::Tensor> moe_mean_probs;  // per layer [n_experts]
  std::vector<at::Tensor> moa_mean_probs;
  int64_t n_tokens = 0;
};

/// Adds up router probabilities of micro-batches.
class StepRoutingSum {
 public:
  void add(const ModelOutput& output);
  /// The sums, for adding those of other ranks in place.
  std::vector<at::Tensor> tensors() const;
  /// n_shares: ranks whose sums were added, of as many tokens each.
  StepRouting mean(int64_t n_shares = 1) const;

 private:
  std::vector<at::Tensor> moe_;  // per layer [n_experts]
  std::vector<at::Tensor> moa_;
  int64_t n_tokens_ = 0;
};

/// The loss of one of `n_micro_batches` equal micro-batches, scaled so that the terms of all of
/// them add to those of the step: means over micro-batches, except that with `routing` given the
/// mutual-information terms are this micro-batch's share of the global ones.
///
/// targets  [batch, seq] int64
/// With every weight 0 the total is the language-model loss, bit for bit.
LossTerms compute_loss(const ModelOutput& output,
                       const at::Tensor& targets,
                       const LossConfig& config,
                       int64_t n_micro_batches = 1,
                       const StepRouting& routing = {});

/// Adds the terms of a further micro-batch, detached.
void accumulate(LossTerms& sum, const LossTerms& terms);

}  // namespace dsmoe
