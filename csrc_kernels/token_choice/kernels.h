#pragma once

#include <cstdint>

#include "csrc_kernels/common/kernel_table.h"
#include "csrc_kernels/common/routing_rule.h"

namespace dsmoe {

/// Contiguous rows of a router's numbers and what is chosen from them.
struct ChoiceRows {
  int64_t n_tokens;
  int64_t n_experts;
  const float* probs;  ///< [n_tokens, E]
  RoutingRule rule;
  int64_t* above_count;  ///< kThresholdTopK: one number, zero before; else null
  bool* selected;        ///< [n_tokens, E]
  float* weights;        ///< [n_tokens, E], zero where not selected
};

/// Experts whose weights the memory of a block of threads holds.
constexpr int64_t kMostChoiceExperts = 3072;

/// The kernel of another device, for at most kMostChoiceExperts.
struct TokenChoiceKernels {
  void (*choose)(const ChoiceRows& rows);
};

}  // namespace dsmoe
