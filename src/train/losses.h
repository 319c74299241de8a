#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "model/model_output.h"
#include "train/train_config.h"

namespace dsmoe {

/// One term of the training loss. The loss is the sum of weight * value over its terms; wherever
/// values are shown, their weights are too.
struct LossTerm {
  std::string name;   ///< `lm`, `moe_mi`, ...: a row of the table in losses.cpp
  double value = 0;   ///< before the weight; nats per token, router terms as in LossConfig
  double weight = 1;  ///< 0: only reported
  /// The least possible value, of a mutual-information term: minus ln(n_experts), summed over
  /// layers. 0: the term has none.
  double bound = 0;
  double contribution() const { return weight * value; }  ///< to the loss
  bool operator==(const LossTerm&) const = default;
};

/// The name of every loss of the table, in its order.
std::vector<std::string> loss_names();

/// The key of a term's value in metrics.jsonl and `train --json`, and of its weight in their
/// `loss_weights`: `lm_loss` for `lm`, else the name.
std::string loss_key(const std::string& name);

/// `3.412 (lm 3.405 moe_mi -0.61*0.0005)`, with digits enough that the weighted terms give the
/// loss to 0.001.
std::string format_loss(double loss, const std::vector<LossTerm>& terms);

/// The loss of a micro-batch or, added up, of a step: scalars, float32.
struct Loss {
  at::Tensor total;                 ///< root of the backward pass
  std::vector<at::Tensor> values;   ///< one per row of the table; undefined: no such term
  std::vector<double> bounds = {};  ///< one per row, see LossTerm
};

/// The terms of a loss as numbers; waits for its device.
std::vector<LossTerm> loss_terms(const Loss& loss, const LossConfig& config);

/// Mean router probabilities of every layer over all tokens of a step, for the global
/// mutual-information loss. Empty lists: local scope.
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
  /// n_shares: number of ranks with added sums, each over the same number of tokens.
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
/// Router terms are undefined where the model has no such experts. Mutual information and sparsity
/// are computed without gradient where their weight is 0; balance and z are left out then.
/// With every weight 0 the total is the language-model loss, bit for bit.
Loss compute_loss(const ModelOutput& output,
                  const at::Tensor& targets,
                  const LossConfig& config,
                  int64_t n_micro_batches = 1,
                  const StepRouting& routing = {});

/// Adds the loss of a further micro-batch, detached.
void accumulate(Loss& sum, const Loss& loss);

}  // namespace dsmoe
