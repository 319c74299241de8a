#pragma once

#include <cstdint>
#include <vector>

#include "model/transformer.h"

namespace dsmoe {

struct ParameterCount {
  int64_t total = 0;
  int64_t embedding = 0;  ///< token and position embeddings and an untied head
  int64_t non_embedding() const { return total - embedding; }
};

ParameterCount count_parameters(const Transformer& model);

/// Mean number of experts a token used, per layer; empty where the model has no experts of a kind.
struct ActiveExperts {
  std::vector<double> moe;
  std::vector<double> moa;
};

/// Every expert of every layer, as dense execution computes them.
ActiveExperts all_experts(const ModelConfig& config);

/// Non-embedding parameters that a token uses: all of them but the matrices of the experts it
/// leaves out (up, gate and down of an FFN expert, Q and O of an attention expert). Routers, norms,
/// shared K and V count in full. Source: arXiv:2404.05567, section 4.2 (totals without embeddings).
double active_parameters(const Transformer& model, const ActiveExperts& active);

}  // namespace dsmoe
