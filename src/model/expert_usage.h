#pragma once

#include <cstdint>
#include <vector>

#include "model/model_output.h"
#include "model/parameter_count.h"

namespace dsmoe {

/// Expert use of the tokens in one layer.
struct LayerUsage {
  std::vector<int64_t> tokens_per_expert;  // [n_experts]
  int64_t tokens_without_expert = 0;
  double selected_probs = 0;  // sum of router_probs over the selected pairs

  int64_t n_selected() const;
  /// Mean router_prob of the selected experts; 0 if there is none.
  double mean_selected_prob() const;
};

/// Sums of expert use over forward passes; the sums of two objects can be added.
class ExpertUsage {
 public:
  /// Adds the tokens of one pass. token_mask [batch, seq] bool, tokens that count; undefined: all.
  void add(const ModelOutput& output, const at::Tensor& token_mask = {});

  /// Returns all sums as a list of numbers that another rank can add.
  std::vector<double> numbers() const;
  /// Adds the numbers() of another object. Throws c10::Error if it belongs to another model.
  void add(const std::vector<double>& numbers);

  int64_t n_tokens() const { return n_tokens_; }
  ActiveExperts active_experts() const;
  /// One entry per layer; empty if the model has no experts of the kind.
  const std::vector<LayerUsage>& moe() const { return moe_; }
  const std::vector<LayerUsage>& moa() const { return moa_; }

 private:
  int64_t n_tokens_ = 0;
  std::vector<LayerUsage> moe_;
  std::vector<LayerUsage> moa_;
};

/// Mean over layers; 0 for an empty list.
double mean_over_layers(const std::vector<double>& per_layer);

}  // namespace dsmoe
