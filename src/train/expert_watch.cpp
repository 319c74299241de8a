#include "train/expert_watch.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/log_softmax.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

namespace dsmoe {
namespace {

double entropy_of(const std::vector<double>& sums, double total) {
  double entropy = 0;
  for (const double sum : sums) {
    const double p = sum / total;
    if (p != 0) entropy -= p * std::log(p);  // a NaN stays NaN
  }
  return entropy;
}

}  // namespace

ExpertWatch::ExpertWatch(const GuardConfig& config, RoutingPlan plan)
    : config_(config), plan_(std::move(plan)) {}

void ExpertWatch::add(const ModelOutput& output, bool measures) {
  const at::NoGradGuard no_grad;
  const auto add_kind = [&](std::vector<Layer>& layers,
                            const std::vector<RoutingRecord>& records,
                            const char* kind,
                            RoutingPolicy LayerRouting::*policy,
                            bool measures_kind) {
    layers.resize(records.size());
    for (size_t i = 0; i < records.size(); ++i) {
      if (layers[i].name.empty()) layers[i].name = fmt::format("layer {} {}", i, kind);
      const bool selects_all = (plan_.layer(i).*policy).selection == Selection::kAll;
      add_record(layers[i], records[i], selects_all, measures_kind);
    }
  };
  const bool is_softmax = output.moe_activation == RouterActivation::kSoftmax;
  add_kind(moe_, output.moe, "moe", &LayerRouting::moe, measures && is_softmax);
  add_kind(moa_, output.moa, "moa", &LayerRouting::moa, measures);
}

void ExpertWatch::add_record(Layer& layer,
                             const RoutingRecord& record,
                             bool selects_all,
                             bool measures) {
  const auto probs = record.router_probs.flatten(0, 1);  // [n_tokens, n_experts]
  const int64_t n_tokens = probs.size(0);
  const auto n_experts = static_cast<size_t>(probs.size(1));
  const auto served =
      selects_all ? probs.ge(1.0 / static_cast<double>(n_experts)) : record.selected.flatten(0, 1);
  std::vector<at::Tensor> numbers = {served.sum(0, false, at::kDouble)};
  layer.step_load.resize(n_experts);
  layer.step_tokens += static_cast<double>(n_tokens);
  if (selects_all) layer.step_selected += static_cast<double>(n_tokens * probs.size(1));
  layer.counts_selected = !selects_all;
  if (measures) {
    const auto log_probs = at::log_softmax(record.router_logits.flatten(0, 1), -1);
    numbers.push_back((probs * log_probs).sum(at::kDouble).view({1}));
    numbers.push_back(probs.sum(0, false, at::kDouble));
    layer.sum_probs.resize(n_experts);
    layer.n_measured += static_cast<double>(n_tokens);
  }
  layer.pending.push_back(at::cat(numbers));
}

// Reads all counts of the device in one copy.
void ExpertWatch::collect() {
  std::vector<at::Tensor> pending;
  for (auto* layers : {&moe_, &moa_}) {
    for (auto& layer : *layers) {
      pending.insert(pending.end(), layer.pending.begin(), layer.pending.end());
    }
  }
  if (pending.empty()) return;
  const auto all = at::cat(pending).cpu();
  const auto* number = all.const_data_ptr<double>();
  for (auto* layers : {&moe_, &moa_}) {
    for (auto& layer : *layers) {
      const auto n_experts = static_cast<int64_t>(layer.step_load.size());
      for (const auto& numbers : std::exchange(layer.pending, {})) {
        for (auto& load : layer.step_load) {
          load += *number;
          if (layer.counts_selected) layer.step_selected += *number;
          ++number;
        }
        if (numbers.size(0) == n_experts) continue;
        layer.sum_entropy -= *number++;
        for (auto& sum : layer.sum_probs) sum += *number++;
      }
    }
  }
}

std::vector<double*> ExpertWatch::step_numbers() {
  collect();
  std::vector<double*> numbers;
  for (auto* layers : {&moe_, &moa_}) {
    for (auto& layer : *layers) {
      for (auto& count : layer.step_load) numbers.push_back(&count);
      numbers.insert(numbers.end(), {&layer.step_selected, &layer.step_tokens});
      if (layer.n_measured == 0) continue;
      for (auto& sum : layer.sum_probs) numbers.push_back(&sum);
      numbers.insert(numbers.end(), {&layer.sum_entropy, &layer.n_measured});
    }
  }
  return numbers;
}

std::vector<std::string> ExpertWatch::end_step() {
  collect();
  std::vector<std::string> alarms;
  for (auto* layers : {&moe_, &moa_}) {
    for (auto& layer : *layers) {
      check_use(layer, alarms);
      check(layer, alarms);
      close_step(layer);
    }
  }
  return alarms;
}

void ExpertWatch::check_use(Layer& layer, std::vector<std::string>& alarms) {
  const bool was_unused = std::exchange(layer.is_unused, layer.step_selected == 0);
  if (layer.is_unused && !was_unused) {
    alarms.push_back(
        fmt::format("{}: no token used an expert (a sigmoid router of zeros opens no gate at a "
                    "threshold of 0.5)",
                    layer.name));
  }
}

void ExpertWatch::close_step(Layer& layer) {
  layer.load.resize(layer.step_load.size());
  for (size_t e = 0; e < layer.load.size(); ++e) {
    layer.load[e] += std::exchange(layer.step_load[e], 0.0);
  }
  layer.n_selected += std::exchange(layer.step_selected, 0.0);
  layer.n_tokens += std::exchange(layer.step_tokens, 0.0);
}

void ExpertWatch::check(Layer& layer, std::vector<std::string>& alarms) {
  layer.idle_steps.resize(layer.step_load.size());
  for (size_t e = 0; e < layer.step_load.size(); ++e) {
    layer.idle_steps[e] = layer.step_load[e] > 0 ? 0 : layer.idle_steps[e] + 1;
    if (config_.dead_expert_steps > 0 && layer.idle_steps[e] == config_.dead_expert_steps) {
      alarms.push_back(fmt::format(
          "{}: expert {} had no load for {} steps", layer.name, e, layer.idle_steps[e]));
    }
  }
  if (layer.n_measured == 0 || layer.sum_probs.size() < 2 || config_.collapse_entropy <= 0) return;
  const double share = entropy_of(layer.sum_probs, layer.n_measured) /
                       std::log(static_cast<double>(layer.sum_probs.size()));
  // A NaN counts as collapsed.
  const bool was_collapsed =
      std::exchange(layer.is_collapsed, !(share >= config_.collapse_entropy));
  if (layer.is_collapsed && !was_collapsed) {
    alarms.push_back(
        fmt::format("{}: the router has collapsed: entropy of the mean routing distribution is "
                    "{:.3f} of log(n_experts)",
                    layer.name,
                    share));
  }
}

LayerRoutingStats ExpertWatch::take(Layer& layer) {
  LayerRoutingStats stats;
  const double n_tokens = std::max(std::exchange(layer.n_tokens, 0.0), 1.0);
  for (auto& count : layer.load) stats.load.push_back(std::exchange(count, 0.0) / n_tokens);
  stats.active_experts = std::exchange(layer.n_selected, 0.0) / n_tokens;
  if (layer.n_measured > 0) {
    const double n_measured = std::exchange(layer.n_measured, 0.0);
    stats.entropies = {.token = std::exchange(layer.sum_entropy, 0.0) / n_measured,
                       .mean = entropy_of(layer.sum_probs, n_measured)};
    layer.sum_probs.assign(layer.sum_probs.size(), 0.0);
  }
  return stats;
}

RoutingStats ExpertWatch::take_stats() {
  RoutingStats stats;
  for (auto& layer : moe_) stats.moe.push_back(take(layer));
  for (auto& layer : moa_) stats.moa.push_back(take(layer));
  return stats;
}

}  // namespace dsmoe
