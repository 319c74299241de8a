#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "eval/perplexity.h"

namespace dsmoe {

struct RecommendOptions {
  double rise = 0.01;     ///< greatest rise of the perplexity, as a share
  int64_t tokens = 8192;  ///< scored per policy, about; windows spread over the text
  int64_t batch = 8;      ///< windows per forward pass
  Execution execution = Execution::kAuto;
  at::ScalarType compute_dtype = at::kFloat;
  /// Called after each forward pass with the windows that are scored and an upper bound of all.
  std::function<void(int64_t done, int64_t all)> on_progress = {};
  std::function<bool()> stop = {};  ///< true ends the search with StoppedError
};

/// A policy for all layers on the measured windows.
struct PolicyQuality {
  RoutingPlan plan = RoutingPolicy::all();
  double perplexity = 0;
  double active_parameters = 0;
  double share = 0;  ///< active parameters over all that are not embeddings
  double rise = 0;   ///< of the perplexity over the reference, as a share
};

struct Recommendation {
  PolicyQuality chosen;     ///< fewest active parameters among `measured` within the rise
  PolicyQuality reference;  ///< the better of `all` and the training selection
  std::vector<PolicyQuality> measured;  ///< from most to fewest active parameters
  int64_t tokens_scored = 0;            ///< per policy
};

/// Finds the policy for all layers with the fewest active parameters whose perplexity is at most
/// `rise` above the reference.
///
/// Measures `all`, the training selection, and two families: `threshold` for both kinds of experts
/// at 0.2, 0.4, 0.6, 0.8 and, behind a softmax, 1.2; `top_k` for the FFN experts (the attention
/// experts of a model without others) at powers of two. Then it measures up to three values between
/// the last one within the rise and the first one beyond it. threshold_top_k is left out because it
/// depends on the batch. Throws Error for a model without experts and a text without a token to
/// score.
Recommendation recommend_policy(Transformer& model,
                                const EvalText& text,
                                const RecommendOptions& options);

}  // namespace dsmoe
