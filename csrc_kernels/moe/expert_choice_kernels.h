#pragma once

#include <cstdint>

#include "csrc_kernels/common/device_kernel.h"

namespace dsmoe {

enum class ChoiceKind {
  kAll,
  kTopK,           ///< the k strongest; among equals the lower number
  kThreshold,      ///< those with threshold_scale * prob > epsilon
  kThresholdTopK,  ///< top k with the mean count of kThreshold over all tokens as k, at least 1
};

/// What a token that chose nobody uses.
enum class EmptyChoice { kNothing, kStrongest, kAll };

/// How experts are chosen from a router's numbers, and what they then weigh.
struct ChoiceRule {
  ChoiceKind kind = ChoiceKind::kAll;
  int64_t k = 0;
  double epsilon = 0.0;
  double threshold_scale = 1.0;
  int64_t max_experts = 0;  ///< cap per token under kThreshold, the strongest; 0: none
  EmptyChoice empty = EmptyChoice::kNothing;
  bool renormalise = false;  ///< weights divided by their sum over the chosen
  bool count_scale = false;  ///< weights times n_experts / number of chosen
  bool list_all = false;     ///< pairs of every token and expert, those not chosen with weight 0
};

/// Contiguous rows of a router's numbers and what is chosen from them.
struct ChoiceRows {
  int64_t n_tokens;
  int64_t n_experts;
  const float* probs;    ///< [n_tokens, E]
  ChoiceRule rule;       ///< list_all is not used
  int64_t* above_count;  ///< kThresholdTopK: one number, zero before; else null
  bool* selected;        ///< [n_tokens, E]
  float* weights;        ///< [n_tokens, E], zero where not selected
};

/// Experts whose weights the memory of a block of threads holds.
constexpr int64_t kMostChoiceExperts = 3072;

/// The kernel of another device, for at most kMostChoiceExperts.
struct ExpertChoiceOnDevice {
  static inline DeviceKernel<const ChoiceRows&> choose = nullptr;
};

}  // namespace dsmoe
