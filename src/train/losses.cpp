#include "train/losses.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cross_entropy_loss.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "csrc_kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "model/linear.h"
#include "model/loss/expert_sparsity.h"
#include "model/loss/mutual_information.h"
#include "model/loss/router_losses.h"

namespace dsmoe {
namespace {

using Records = std::vector<RoutingRecord>;

// Inputs of a loss.
struct LossInputs {
  const ModelOutput& output;
  const at::Tensor& targets;  // [batch, seq]
  const StepRouting& routing;
  double share;  // of the step: 1 / n_micro_batches
};

at::Tensor plus(const at::Tensor& sum, const at::Tensor& term) {
  return sum.defined() ? sum + term : term;
}

bool has_softmax(const ModelOutput& output) {
  return output.moe_activation == RouterActivation::kSoftmax;
}

using LayerLoss = std::function<at::Tensor(size_t layer, const RoutingRecord& record)>;

// A term that is only reported is computed without a graph.
at::Tensor sum_over_layers(const Records& records, double weight, const LayerLoss& loss) {
  const at::AutoGradMode with_gradient(at::GradMode::is_enabled() && weight != 0.0);
  at::Tensor sum;
  for (size_t i = 0; i < records.size(); ++i) sum = plus(sum, loss(i, records[i]));
  return sum;
}

// Over the layers of attention and, `with_moe`, of FFN experts; undefined where the weight is 0.
at::Tensor sum_over_kinds(const LossInputs& in,
                          double weight,
                          bool with_moe,
                          const LayerLoss& loss) {
  if (weight == 0.0) return {};
  auto sum = with_moe ? sum_over_layers(in.output.moe, weight, loss) : at::Tensor();
  const auto moa = sum_over_layers(in.output.moa, weight, loss);
  return moa.defined() ? plus(sum, moa) : sum;
}

// [batch, seq, ...], one row a token
const at::Tensor& rows_of(const ModelOutput& output) {
  return output.logits.defined() ? output.logits : output.features;
}

int64_t n_tokens_of(const ModelOutput& output) {
  return rows_of(output).size(0) * rows_of(output).size(1);
}

at::Tensor cross_entropy(const ModelOutput& output, const at::Tensor& targets) {
  if (output.logits.defined()) {
    const auto logits = at_least_float32(output.logits.flatten(0, 1));  // [n_tokens, vocab_size]
    return at::cross_entropy_loss(logits, targets.flatten());
  }
  return linear_cross_entropy(
      output.features.flatten(0, 1), output.head.parameter, output.head.values, targets.flatten());
}

// Mean cross entropy per token, nats.
at::Tensor language_model_loss(const LossInputs& in, double) {
  const auto loss = cross_entropy(in.output, in.targets);
  return in.share < 1.0 ? loss * in.share : loss;
}

at::Tensor mi_loss(const LossInputs& in,
                   double weight,
                   const Records& records,
                   const std::vector<at::Tensor>& mean_probs) {
  return sum_over_layers(records, weight, [&](size_t i, const RoutingRecord& record) {
    if (mean_probs.empty()) return mutual_information_loss(record.router_logits) * in.share;
    return mutual_information_loss(record.router_logits, {}, mean_probs.at(i), in.routing.n_tokens);
  });
}

at::Tensor moe_mi_loss(const LossInputs& in, double weight) {
  if (!has_softmax(in.output)) return {};
  return mi_loss(in, weight, in.output.moe, in.routing.moe_mean_probs);
}

at::Tensor moa_mi_loss(const LossInputs& in, double weight) {
  return mi_loss(in, weight, in.output.moa, in.routing.moa_mean_probs);
}

// Mean over layers, of sigmoid routers only.
at::Tensor sparsity_loss(const LossInputs& in, double weight) {
  if (has_softmax(in.output)) return {};
  const auto& records = in.output.moe;
  const auto layer_share = in.share / static_cast<double>(records.size());
  return sum_over_layers(records, weight, [&](size_t, const RoutingRecord& record) {
    return expert_sparsity_loss(record.router_probs, record.selected) * layer_share;
  });
}

at::Tensor balance_loss(const LossInputs& in, double weight) {
  return sum_over_kinds(in, weight, true, [&](size_t, const RoutingRecord& record) {
    return switch_balance_loss(record.router_probs, record.selected) * in.share;
  });
}

// Of softmax routers only; attention routers always are softmax routers.
at::Tensor z_loss(const LossInputs& in, double weight) {
  return sum_over_kinds(
      in, weight, has_softmax(in.output), [&](size_t, const RoutingRecord& record) {
        return router_z_loss(record.router_logits) * in.share;
      });
}

// The mutual information of a layer is at most the logarithm of its number of experts.
double mi_bound(const Records& records) {
  double bound = 0;
  for (const auto& record : records) {
    bound -= std::log(static_cast<double>(record.router_logits.size(-1)));
  }
  return bound;
}

double moe_mi_bound(const ModelOutput& output) {
  return has_softmax(output) ? mi_bound(output.moe) : 0.0;
}

double moa_mi_bound(const ModelOutput& output) { return mi_bound(output.moa); }

// A loss: its name, its weight in the config (none: 1), its value for a weight, and its bound if it
// has one.
struct LossRow {
  const char* name;
  double LossConfig::*weight;
  at::Tensor (*value)(const LossInputs& in, double weight);
  double (*bound)(const ModelOutput& output) = nullptr;
  double weight_in(const LossConfig& config) const {
    return weight == nullptr ? 1.0 : config.*weight;
  }
};

constexpr LossRow kLosses[] = {
    {"lm", nullptr, language_model_loss},
    {"moe_mi", &LossConfig::moe_mi_weight, moe_mi_loss, moe_mi_bound},
    {"moa_mi", &LossConfig::moa_mi_weight, moa_mi_loss, moa_mi_bound},
    {"sparsity", &LossConfig::sparsity_weight, sparsity_loss},
    {"balance", &LossConfig::switch_weight, balance_loss},
    {"z", &LossConfig::z_weight, z_loss},
};

void add_probs(std::vector<at::Tensor>& sums, const Records& records) {
  sums.resize(records.size());
  for (size_t i = 0; i < records.size(); ++i) {
    sums[i] = plus(sums[i], sum_router_probs(records[i].router_logits));
  }
}

}  // namespace

std::vector<std::string> loss_names() {
  std::vector<std::string> names;
  for (const auto& row : kLosses) names.emplace_back(row.name);
  return names;
}

std::string loss_key(const std::string& name) { return name == "lm" ? "lm_loss" : name; }

std::string format_loss(double loss, const std::vector<LossTerm>& terms) {
  std::string text;
  for (const auto& term : terms) {
    const int digits =
        term.weight > 0 ? 3 + static_cast<int>(std::ceil(std::log10(term.weight))) : 2;
    text += fmt::format(
        "{}{} {:.{}f}", text.empty() ? "" : " ", term.name, term.value, std::max(digits, 2));
    if (term.weight != 1.0) text += fmt::format("*{:g}", term.weight);
  }
  return fmt::format("{:.3f} ({})", loss, text);
}

std::vector<LossTerm> loss_terms(const Loss& loss, const LossConfig& config) {
  std::vector<LossTerm> terms;
  for (size_t i = 0; i < loss.values.size(); ++i) {
    if (!loss.values[i].defined()) continue;
    terms.push_back({.name = kLosses[i].name,
                     .value = loss.values[i].item<double>(),
                     .weight = kLosses[i].weight_in(config),
                     .bound = i < loss.bounds.size() ? loss.bounds[i] : 0.0});
  }
  return terms;
}

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

Loss compute_loss(const ModelOutput& output,
                  const at::Tensor& targets,
                  const LossConfig& config,
                  int64_t n_micro_batches,
                  const StepRouting& routing) {
  TORCH_CHECK(targets.sizes() == rows_of(output).sizes().slice(0, 2),
              "compute_loss: expected targets of shape ",
              rows_of(output).sizes().slice(0, 2),
              ", got ",
              targets.sizes());
  const LossInputs in{output, targets, routing, 1.0 / static_cast<double>(n_micro_batches)};
  Loss loss;
  for (const auto& row : kLosses) {
    const double weight = row.weight_in(config);
    const auto& value = loss.values.emplace_back(row.value(in, weight));
    loss.bounds.push_back(row.bound != nullptr ? row.bound(output) : 0.0);
    if (!value.defined() || weight == 0.0) continue;
    loss.total = plus(loss.total, weight == 1.0 ? value : value * weight);
  }
  return loss;
}

void accumulate(Loss& sum, const Loss& loss) {
  sum.total = plus(sum.total, loss.total.detach());
  sum.values.resize(loss.values.size());
  sum.bounds = loss.bounds;
  for (size_t i = 0; i < loss.values.size(); ++i) {
    if (loss.values[i].defined()) sum.values[i] = plus(sum.values[i], loss.values[i].detach());
  }
}

}  // namespace dsmoe
