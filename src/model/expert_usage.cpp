#include "model/expert_usage.h"

#include <ATen/core/Tensor.h>

#include <numeric>

namespace dsmoe {
namespace {

using Counts = std::vector<std::vector<int64_t>>;

void add_counts(Counts& counts,
                const std::vector<RoutingRecord>& records,
                const at::Tensor& token_mask) {
  counts.resize(records.size());
  for (size_t layer = 0; layer < records.size(); ++layer) {
    auto selected = records[layer].selected.flatten(0, 1);  // [n_tokens, n_experts]
    if (token_mask.defined()) selected = selected.logical_and(token_mask.flatten().unsqueeze(1));
    const auto sums = selected.sum(0).contiguous();  // [n_experts] int64
    auto& total = counts[layer];
    total.resize(static_cast<size_t>(sums.numel()), 0);
    for (size_t i = 0; i < total.size(); ++i) total[i] += sums.const_data_ptr<int64_t>()[i];
  }
}

std::vector<double> mean_counts(const Counts& counts, int64_t n_tokens) {
  std::vector<double> means;
  for (const auto& layer : counts) {
    const auto total = std::accumulate(layer.begin(), layer.end(), int64_t{0});
    means.push_back(n_tokens > 0 ? static_cast<double>(total) / static_cast<double>(n_tokens)
                                 : 0.0);
  }
  return means;
}

}  // namespace

void ExpertUsage::add(const ModelOutput& output, const at::Tensor& token_mask) {
  n_tokens_ += token_mask.defined() ? token_mask.sum().item<int64_t>()
                                    : output.logits.size(0) * output.logits.size(1);
  add_counts(moe_, output.moe, token_mask);
  add_counts(moa_, output.moa, token_mask);
}

ActiveExperts ExpertUsage::active_experts() const {
  return {.moe = mean_counts(moe_, n_tokens_), .moa = mean_counts(moa_, n_tokens_)};
}

double mean_over_layers(const std::vector<double>& per_layer) {
  if (per_layer.empty()) return 0.0;
  return std::accumulate(per_layer.begin(), per_layer.end(), 0.0) /
         static_cast<double>(per_layer.size());
}

}  // namespace dsmoe
