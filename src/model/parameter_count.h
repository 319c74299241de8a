#pragma once

#include <cstdint>
#include <vector>

#include "model/model_config.h"

namespace dsmoe {

/// Parameters of a model by kind. The totals of the paper omit embeddings; its dense baselines have
/// the same matrices. Source: arXiv:2404.05567, section 4.1.
struct ParameterCount {
  int64_t embeddings = 0;  ///< token and position embeddings and an untied head
  int64_t matrices = 0;    ///< of attention and FFN
  int64_t routers = 0;
  int64_t norms = 0;   ///< of blocks, of queries and keys, and the last one
  int64_t biases = 0;  ///< of attention and FFN

  int64_t non_embedding() const { return matrices + routers + norms + biases; }
  int64_t total() const { return embeddings + non_embedding(); }
};

/// Counts from the config alone; allocates no weight.
ParameterCount count_parameters(const ModelConfig& config);

/// Mean number of experts that a token used, per layer; empty if the model has no experts of the
/// kind.
struct ActiveExperts {
  std::vector<double> moe;
  std::vector<double> moa;
};

/// Every expert of every layer, as dense execution computes them.
ActiveExperts all_experts(const ModelConfig& config);

/// Non-embedding parameters that a token uses: all except the matrices of the experts that it does
/// not select (up, gate and down of an FFN expert, Q and O of an attention expert). Routers, norms,
/// shared K and V count in full. Source: arXiv:2404.05567, section 4.2 (totals without embeddings).
double active_parameters(const ModelConfig& config, const ActiveExperts& active);

}  // namespace dsmoe
