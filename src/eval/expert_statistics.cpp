#include "eval/expert_statistics.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <tuple>

namespace dsmoe {
namespace {

using Counts = std::vector<int64_t>;

void add_counts(Counts& sums, const Counts& other) {
  sums.resize(std::max(sums.size(), other.size()), 0);
  for (size_t i = 0; i < other.size(); ++i) sums[i] += other[i];
}

void add_rows(std::vector<Counts>& sums, const std::vector<Counts>& other) {
  sums.resize(std::max(sums.size(), other.size()));
  for (size_t i = 0; i < other.size(); ++i) add_counts(sums[i], other[i]);
}

// The experts that one token selected.
void add_token(LayerSelections& layer,
               const std::vector<size_t>& experts,
               int64_t token,
               size_t group) {
  auto& of_token = layer.by_token[token];
  of_token.resize(layer.together.size(), 0);
  for (const size_t i : experts) {
    ++of_token[i];
    ++layer.by_group[group][i];
    for (const size_t j : experts) ++layer.together[i][j];
  }
}

void add_layer(LayerSelections& layer, const RoutingRecord& record, const EvalBatch& batch) {
  const auto selected = record.selected.flatten(0, 1).contiguous().cpu();  // [n_tokens, n_experts]
  const auto n_experts = static_cast<size_t>(selected.size(1));
  const auto* is_selected = selected.const_data_ptr<bool>();
  const auto* counts = batch.counts.const_data_ptr<bool>();
  const auto* ids = batch.tokens.const_data_ptr<int64_t>();
  const auto seq = static_cast<size_t>(batch.tokens.size(1));
  layer.together.resize(n_experts, Counts(n_experts, 0));
  const size_t n_groups = 1 + *std::max_element(batch.groups.begin(), batch.groups.end());
  if (layer.by_group.size() < n_groups) layer.by_group.resize(n_groups, Counts(n_experts, 0));
  std::vector<size_t> experts;
  for (size_t token = 0; token < seq * batch.groups.size(); ++token) {
    if (!counts[token]) continue;
    experts.clear();
    for (size_t i = 0; i < n_experts; ++i) {
      if (is_selected[token * n_experts + i]) experts.push_back(i);
    }
    add_token(layer, experts, ids[token], batch.groups[token / seq]);
  }
}

void add_layers(std::vector<LayerSelections>& layers,
                const std::vector<RoutingRecord>& records,
                const EvalBatch& batch) {
  layers.resize(records.size());
  for (size_t i = 0; i < records.size(); ++i) add_layer(layers[i], records[i], batch);
}

void add_layers(std::vector<LayerSelections>& sums, const std::vector<LayerSelections>& other) {
  if (sums.empty()) sums.resize(other.size());
  TORCH_CHECK(sums.size() == other.size() || other.empty(),
              "ExpertStatistics: expected ",
              sums.size(),
              " layers, got ",
              other.size());
  for (size_t i = 0; i < other.size(); ++i) {
    add_rows(sums[i].together, other[i].together);
    add_rows(sums[i].by_group, other[i].by_group);
    for (const auto& [id, counts] : other[i].by_token) add_counts(sums[i].by_token[id], counts);
  }
}

}  // namespace

void ExpertStatistics::add(const ModelOutput& output, const EvalBatch& batch) {
  const auto seq = static_cast<size_t>(batch.tokens.size(1));
  const auto* counts = batch.counts.const_data_ptr<bool>();
  const auto* ids = batch.tokens.const_data_ptr<int64_t>();
  for (size_t token = 0; token < seq * batch.groups.size(); ++token) {
    if (!counts[token]) continue;
    const size_t group = batch.groups[token / seq];
    tokens_of_groups_.resize(std::max(tokens_of_groups_.size(), group + 1), 0);
    ++tokens_of_groups_[group];
    ++occurrences_[ids[token]];
    ++n_tokens_;
  }
  add_layers(moe_, output.moe, batch);
  add_layers(moa_, output.moa, batch);
}

void ExpertStatistics::add(const ExpertStatistics& other) {
  n_tokens_ += other.n_tokens_;
  add_counts(tokens_of_groups_, other.tokens_of_groups_);
  for (const auto& [id, count] : other.occurrences_) occurrences_[id] += count;
  add_layers(moe_, other.moe_);
  add_layers(moa_, other.moa_);
}

std::vector<std::vector<double>> ExpertStatistics::co_activation(
    const LayerSelections& layer) const {
  const auto& together = layer.together;
  std::vector<std::vector<double>> lifts(together.size());
  for (size_t i = 0; i < together.size(); ++i) {
    for (size_t j = 0; j < together.size(); ++j) {
      const double by_chance = static_cast<double>(together[i][i]) *
                               static_cast<double>(together[j][j]) / static_cast<double>(n_tokens_);
      lifts[i].push_back(by_chance > 0 ? static_cast<double>(together[i][j]) / by_chance
                                       : std::numeric_limits<double>::quiet_NaN());
    }
  }
  return lifts;
}

std::vector<TypicalToken> ExpertStatistics::typical_tokens(const LayerSelections& layer,
                                                           size_t expert,
                                                           size_t limit,
                                                           int64_t min_count) const {
  std::vector<TypicalToken> tokens;
  const double share =
      static_cast<double>(layer.together[expert][expert]) / static_cast<double>(n_tokens_);
  for (const auto& [id, counts] : layer.by_token) {
    const int64_t occurrences = occurrences_.at(id);
    if (occurrences < min_count || counts[expert] == 0) continue;
    const double of_token = static_cast<double>(counts[expert]) / static_cast<double>(occurrences);
    tokens.push_back({.id = id, .count = occurrences, .lift = of_token / share});
  }
  const auto n = static_cast<std::ptrdiff_t>(std::min(limit, tokens.size()));
  std::partial_sort(tokens.begin(), tokens.begin() + n, tokens.end(), [](auto& a, auto& b) {
    return std::tuple(-a.lift, -a.count, a.id) < std::tuple(-b.lift, -b.count, b.id);
  });
  tokens.resize(static_cast<size_t>(n));
  return tokens;
}

Specialisation specialisation(const LayerSelections& layer) {
  Counts all;
  for (const auto& group : layer.by_group) add_counts(all, group);
  const auto sum = [](const Counts& counts) {
    return static_cast<double>(std::accumulate(counts.begin(), counts.end(), int64_t{0}));
  };
  const double n_all = sum(all);
  TORCH_CHECK(n_all > 0, "specialisation: expected at least one selected expert, got none");
  Specialisation result;
  for (const auto& group : layer.by_group) {
    const double n_group = sum(group);
    double kl = 0;
    for (size_t i = 0; i < group.size(); ++i) {
      if (group[i] == 0) continue;
      const double load = static_cast<double>(group[i]) / n_group;
      kl += load * std::log(load / (static_cast<double>(all[i]) / n_all));
    }
    result.kl.push_back(kl);
    result.mutual_information += n_group / n_all * kl;
  }
  return result;
}

}  // namespace dsmoe
