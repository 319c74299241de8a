#pragma once

#include "eval/perplexity.h"

namespace dsmoe {

/// A model under a plan.
struct ModelUnderPlan {
  Transformer& model;
  RoutingPlan plan;
  at::ScalarType compute_dtype = at::kFloat;
};

/// Divergence of a model's predictions from a reference's. Sums over scored tokens.
struct Divergence {
  PerplexityResult model;
  PerplexityResult reference;
  double kl_total = 0;     ///< nats: sum of KL(reference || model) over the vocabulary
  double kl_max = 0;       ///< of one token
  int64_t n_same_top = 0;  ///< scored tokens for which both have the same most likely token

  double kl_per_token() const;
  double top1_agreement() const;  ///< 0 to 1
};

/// One pass over the text, cut as evaluate_perplexity does, with both; the plan and compute dtype
/// of `options` are not used, and the window defaults to the shorter context. log_softmax runs in
/// float64. Of equal logits the first id counts. Throws Error if the vocabularies differ in size,
/// and as evaluate_perplexity does.
Divergence compare_predictions(const ModelUnderPlan& model,
                               const ModelUnderPlan& reference,
                               const EvalText& text,
                               const PerplexityOptions& options);

}  // namespace dsmoe
