#pragma once

#include <cstdint>

namespace dsmoe {

/// Which experts count for a token.
enum class Selection {
  kAll,            ///< every expert
  kTopK,           ///< the k strongest
  kThreshold,      ///< those with threshold_scale * router_prob > epsilon; the count varies
  kThresholdTopK,  ///< top k with the batch's mean threshold count as k: depends on the batch
};

/// Experts of a token that selected none.
enum class ZeroActive { kZero, kArgmax, kAll };

/// What turns router logits into router_probs.
enum class RouterActivation { kSoftmax, kSigmoid };

/// Activation inside an FFN expert; kIdentity: attention experts have none. kSwiglu is
/// silu(gate) * up, kQuickGelu x sigmoid(1.702 x).
enum class Activation { kIdentity, kGelu, kGeluTanh, kSwiglu, kSilu, kQuickGelu, kReluSquared };

/// Matrices whose products enter the activation.
constexpr int64_t n_inputs(Activation activation) {
  return activation == Activation::kSwiglu ? 2 : 1;
}

/// How experts are selected from router_probs, and their weights.
struct RoutingRule {
  Selection selection = Selection::kAll;
  int64_t k = 0;                 ///< for kTopK
  double epsilon = 0.0;          ///< compared with threshold_scale * router_prob, strictly greater
  double threshold_scale = 1.0;  ///< n_experts behind a softmax, 1 behind sigmoids
  int64_t max_experts = 0;       ///< cap per token under kThreshold, the strongest; 0: none
  ZeroActive zero_active = ZeroActive::kZero;
  bool renormalise = false;       ///< weights divided by their sum over the selected
  bool count_scale = false;       ///< weights times n_experts / number of selected
  bool straight_through = false;  ///< unselected weights receive the gradient of selected ones
};

/// Upper bound of a token's selected experts; 0: not known before they are counted.
inline int64_t most_selected(const RoutingRule& rule) {
  if (rule.selection == Selection::kTopK) return rule.k;
  const bool capped =
      rule.selection == Selection::kThreshold && rule.zero_active != ZeroActive::kAll;
  return capped ? rule.max_experts : 0;
}

}  // namespace dsmoe
