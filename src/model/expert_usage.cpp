#include "model/expert_usage.h"

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <numeric>

namespace dsmoe {
namespace {

// Plain loops: for one token, as in decoding, tensor operations cost more than the count.
void add_layer(LayerUsage& layer, const RoutingRecord& record, const at::Tensor& token_mask) {
  const auto selected = record.selected.flatten(0, 1).contiguous().cpu();  // [n_tokens, n_experts]
  const auto probs = record.router_probs.defined()
                         ? record.router_probs.to(at::kDouble).contiguous().cpu()
                         : at::Tensor();
  const auto* is_selected = selected.const_data_ptr<bool>();
  const auto* prob = probs.defined() ? probs.const_data_ptr<double>() : nullptr;
  const auto* counts = token_mask.defined() ? token_mask.const_data_ptr<bool>() : nullptr;
  const int64_t n_experts = selected.size(1);
  layer.tokens_per_expert.resize(static_cast<size_t>(n_experts), 0);
  for (int64_t token = 0; token < selected.size(0); ++token) {
    if (counts != nullptr && !counts[token]) continue;
    bool any = false;
    for (int64_t i = 0; i < n_experts; ++i) {
      if (!is_selected[token * n_experts + i]) continue;
      any = true;
      ++layer.tokens_per_expert[static_cast<size_t>(i)];
      if (prob != nullptr) layer.selected_probs += prob[token * n_experts + i];
    }
    if (!any) ++layer.tokens_without_expert;
  }
}

void add_layers(std::vector<LayerUsage>& layers,
                const std::vector<RoutingRecord>& records,
                const at::Tensor& token_mask) {
  layers.resize(records.size());
  for (size_t i = 0; i < records.size(); ++i) add_layer(layers[i], records[i], token_mask);
}

std::vector<double> mean_counts(const std::vector<LayerUsage>& layers, int64_t n_tokens) {
  std::vector<double> means;
  for (const auto& layer : layers) {
    means.push_back(n_tokens > 0
                        ? static_cast<double>(layer.n_selected()) / static_cast<double>(n_tokens)
                        : 0.0);
  }
  return means;
}

}  // namespace

int64_t LayerUsage::n_selected() const {
  return std::accumulate(tokens_per_expert.begin(), tokens_per_expert.end(), int64_t{0});
}

double LayerUsage::mean_selected_prob() const {
  const auto n = n_selected();
  return n > 0 ? selected_probs / static_cast<double>(n) : 0.0;
}

void ExpertUsage::add(const ModelOutput& output, const at::Tensor& token_mask) {
  // Logits may cover only some of the tokens.
  const auto& of_tokens = output.features.defined() ? output.features : output.logits;
  n_tokens_ += token_mask.defined() ? token_mask.sum().item<int64_t>()
                                    : of_tokens.size(0) * of_tokens.size(1);
  const auto mask = token_mask.defined() ? token_mask.contiguous().cpu() : token_mask;
  add_layers(moe_, output.moe, mask);
  add_layers(moa_, output.moa, mask);
}

std::vector<double> ExpertUsage::numbers() const {
  std::vector<double> numbers = {static_cast<double>(n_tokens_),
                                 static_cast<double>(moe_.size()),
                                 static_cast<double>(moa_.size())};
  for (const auto* layers : {&moe_, &moa_}) {
    for (const auto& layer : *layers) {
      numbers.push_back(static_cast<double>(layer.tokens_per_expert.size()));
      for (const int64_t n : layer.tokens_per_expert) numbers.push_back(static_cast<double>(n));
      numbers.push_back(static_cast<double>(layer.tokens_without_expert));
      numbers.push_back(layer.selected_probs);
    }
  }
  return numbers;
}

void ExpertUsage::add(const std::vector<double>& numbers) {
  size_t at = 0;
  const auto next = [&] {
    TORCH_CHECK(at < numbers.size(), "ExpertUsage: expected more than ", at, " numbers");
    return numbers[at++];
  };
  const auto next_count = [&] { return static_cast<int64_t>(next()); };
  n_tokens_ += next_count();
  const auto n_moe = static_cast<size_t>(next_count());
  const auto n_moa = static_cast<size_t>(next_count());
  // A rank that scored no token has no layers yet.
  moe_.resize(std::max(moe_.size(), n_moe));
  moa_.resize(std::max(moa_.size(), n_moa));
  const auto add_layers = [&](std::vector<LayerUsage>& layers, size_t n) {
    for (size_t i = 0; i < n; ++i) {
      auto& counts = layers[i].tokens_per_expert;
      counts.resize(std::max(counts.size(), static_cast<size_t>(next_count())));
      for (auto& count : counts) count += next_count();
      layers[i].tokens_without_expert += next_count();
      layers[i].selected_probs += next();
    }
  };
  add_layers(moe_, n_moe);
  add_layers(moa_, n_moa);
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
