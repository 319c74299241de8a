#include "train/losses.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cross_entropy_loss.h>

#include <functional>
#include <optional>

#include "csrc_kernels/loss/linear_cross_entropy.h"
#include "model/linear.h"
#include "model/loss/expert_sparsity.h"
#include "model/loss/mutual_information.h"
#include "model/loss/router_losses.h"

namespace dsmoe {
namespace {

using Records = std::vector<RoutingRecord>;

at::Tensor plus(const at::Tensor& sum, const at::Tensor& term) {
  return sum.defined() ? sum + term : term;
}

// A term that is only reported is computed without a graph.
at::Tensor sum_over_layers(const Records& records,
                           double weight,
                           const std::function<at::Tensor(size_t, const RoutingRecord&)>& loss) {
  const at::AutoGradMode with_gradient(at::GradMode::is_enabled() && weight != 0.0);
  at::Tensor sum;
  for (size_t i = 0; i < records.size(); ++i) sum = plus(sum, loss(i, records[i]));
  return sum;
}

at::Tensor mi_loss(const Records& records,
                   double weight,
                   const std::vector<at::Tensor>& mean_probs,
                   int64_t n_tokens,
                   double share) {
  return sum_over_layers(records, weight, [&](size_t i, const RoutingRecord& record) {
    if (mean_probs.empty()) return mutual_information_loss(record.router_logits) * share;
    return mutual_information_loss(record.router_logits, {}, mean_probs.at(i), n_tokens);
  });
}

// [batch, seq, ...], one row a token
const at::Tensor& rows_of(const ModelOutput& output) {
  return output.logits.defined() ? output.logits : output.features;
}

int64_t n_tokens_of(const ModelOutput& output) {
  return rows_of(output).size(0) * rows_of(output).size(1);
}

at::Tensor language_model_loss(const ModelOutput& output, const at::Tensor& targets) {
  if (output.logits.defined()) {
    const auto logits = at_least_float32(output.logits.flatten(0, 1));  // [n_tokens, vocab_size]
    return at::cross_entropy_loss(logits, targets.flatten());
  }
  return linear_cross_entropy(
      output.features.flatten(0, 1), output.head.parameter, output.head.values, targets.flatten());
}

at::Tensor sparsity_loss(const Records& records, double weight, double share) {
  const auto layer_share = share / static_cast<double>(records.size());
  return sum_over_layers(records, weight, [&](size_t, const RoutingRecord& record) {
    return expert_sparsity_loss(record.router_probs, record.selected) * layer_share;
  });
}

void add_probs(std::vector<at::Tensor>& sums, const Records& records) {
  sums.resize(records.size());
  for (size_t i = 0; i < records.size(); ++i) {
    sums[i] = plus(sums[i], sum_router_probs(records[i].router_logits));
  }
}

}  // namespace

void StepRoutingSum::add(const ModelOutput& output) {
  if (output.moe_activation == RouterActivation::kSoftmax) add_probs(moe_, output.moe);
  add_probs(moa_, output.moa);
  n_tokens_ += n_tokens_of(output);
}

std::vector<at::Tensor> StepRoutingSum::tensors() const {
  std::vector<at::Tensor> sums = moe_;
  sums.insert(sums.end(), moa_.begin(), moa_.end());
  return sums;
}

StepRouting StepRoutingSum::mean(int64_t n_shares) const {
  StepRouting routing{
      .moe_mean_probs = moe_, .moa_mean_probs = moa_, .n_tokens = n_tokens_ * n_shares};
  for (auto* sums : {&routing.moe_mean_probs, &routing.moa_mean_probs}) {
    for (auto& sum : *sums) sum = sum / static_cast<double>(routing.n_tokens);
  }
  return routing;
}

LossTerms compute_loss(const ModelOutput& output,
                       const at::Tensor& targets,
                       const LossConfig& config,
                       int64_t n_micro_batches,
                       const StepRouting& routing) {
  TORCH_CHECK(targets.sizes() == rows_of(output).sizes().slice(0, 2),
              "compute_loss: expected targets of shape ",
              rows_of(output).sizes().slice(0, 2),
              ", got ",
              targets.sizes());
  const double share = 1.0 / static_cast<double>(n_micro_batches);
  LossTerms terms;
  terms.lm = language_model_loss(output, targets);
  if (n_micro_batches > 1) terms.lm = terms.lm * share;
  const bool is_softmax = output.moe_activation == RouterActivation::kSoftmax;
  if (is_softmax) {
    terms.moe_mi =
        mi_loss(output.moe, config.moe_mi_weight, routing.moe_mean_probs, routing.n_tokens, share);
  } else {
    terms.sparsity = sparsity_loss(output.moe, config.sparsity_weight, share);
  }
  terms.moa_mi =
      mi_loss(output.moa, config.moa_mi_weight, routing.moa_mean_probs, routing.n_tokens, share);
  for (const auto* records : {&output.moe, &output.moa}) {
    if (records->empty()) continue;
    const auto balance = [&](size_t, const RoutingRecord& record) {
      return switch_balance_loss(record.router_probs, record.selected) * share;
    };
    const auto z = [&](size_t, const RoutingRecord& record) {
      return router_z_loss(record.router_logits) * share;
    };
    if (config.switch_weight != 0.0) {
      terms.balance = plus(terms.balance, sum_over_layers(*records, config.switch_weight, balance));
    }
    const bool has_z = records == &output.moa || is_softmax;
    if (config.z_weight != 0.0 && has_z) {
      terms.z = plus(terms.z, sum_over_layers(*records, config.z_weight, z));
    }
  }

  terms.total = terms.lm;
  const auto add = [&](const at::Tensor& term, double weight) {
    if (term.defined() && weight != 0.0) terms.total = terms.total + term * weight;
  };
  add(terms.moe_mi, config.moe_mi_weight);
  add(terms.moa_mi, config.moa_mi_weight);
  add(terms.sparsity, config.sparsity_weight);
  add(terms.balance, config.switch_weight);
  add(terms.z, config.z_weight);
  return terms;
}

void accumulate(LossTerms& sum, const LossTerms& terms) {
  const auto add = [](at::Tensor& to, const at::Tensor& term) {
    if (term.defined()) to = plus(to, term.detach());
  };
  add(sum.total, terms.total);
  add(sum.lm, terms.lm);
  add(sum.moe_mi, terms.moe_mi);
  add(sum.moa_mi, terms.moa_mi);
  add(sum.sparsity, terms.sparsity);
  add(sum.balance, terms.balance);
  add(sum.z, terms.z);
}

}  // namespace dsmoe
