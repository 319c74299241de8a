#pragma once

#include <cstdint>
#include <vector>

#include "model/model_output.h"
#include "model/parameter_count.h"

namespace dsmoe {

/// Sums of expert use over forward passes; sums of two add.
class ExpertUsage {
 public:
  /// Adds the tokens of one pass. token_mask [batch, seq] bool, tokens that count; undefined: all.
  void add(const ModelOutput& output, const at::Tensor& token_mask = {});

  int64_t n_tokens() const { return n_tokens_; }
  ActiveExperts active_experts() const;
  /// Tokens that used each expert, [layer][expert].
  const std::vector<std::vector<int64_t>>& moe_tokens_per_expert() const { return moe_; }
  const std::vector<std::vector<int64_t>>& moa_tokens_per_expert() const { return moa_; }

 private:
  int64_t n_tokens_ = 0;
  std::vector<std::vector<int64_t>> moe_;
  std::vector<std::vector<int64_t>> moa_;
};

/// Mean over layers; 0 for an empty list.
double mean_over_layers(const std::vector<double>& per_layer);

}  // namespace dsmoe
