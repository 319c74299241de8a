#pragma once

#include <cstdint>
#include <string>

#include "model/io/model_source.h"
#include "model/model_config.h"

namespace dsmoe {

enum class PartitionMethod {
  kContiguous,  ///< expert i owns the neurons i * d_expert .. (i + 1) * d_expert; moves no byte
  kRandom,      ///< a seeded order of the neurons, the same for the three matrices of a layer
};

/// How the FFNs of a dense model are cut into experts.
struct PartitionOptions {
  int64_t n_experts = 8;
  PartitionMethod method = PartitionMethod::kContiguous;
  uint64_t seed = 0;           ///< seed of the routers and of the random order
  std::string layers = "all";  ///< layers to cut, as model.partition.layers
  /// Standard deviation of the routers' weights, above 0. A token's logits spread by about
  /// router_std * sqrt(d_model): 0.9 for 0.02 at the 2048 of the paper, 0.2 at 128.
  double router_std = 0.02;
};

/// Reads `n_experts=8[,method=contiguous|random,seed=S,layers=0-3+7,router_std=0.02]`; a list of
/// layers has `+` for its commas. Throws Error.
PartitionOptions parse_partition_options(const std::string& text);

/// Returns the model with its FFNs cut into experts behind linear sigmoid routers drawn from N(0,
/// router_std) (zeros would open no gate). The training policy is a threshold of 0.5.
///
/// Throws Error unless the FFN is dense and n_experts divides its width.
/// Source: arXiv:2502.12455, sections 4.1 and 4.2.
ModelSource partition_ffn(const ModelSource& dense, const PartitionOptions& options);

}  // namespace dsmoe
