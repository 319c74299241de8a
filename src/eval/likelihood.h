#pragma once

#include <ATen/core/ScalarType.h>

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"
#include "model/moe/routing_plan.h"
#include "model/transformer.h"

namespace dsmoe {

/// Tokens of which the last n_scored are scored, given all before them.
struct Continuation {
  std::vector<int32_t> tokens;
  int64_t n_scored = 0;
};

/// `context` and then `text`, encoded as one, from BOS where the tokenizer adds one, or has one and
/// there is no context. The tokens of `text` are those after as many as the context alone has:
/// blanks at its end count as text's, as tokenizers join them with the next word. Throws Error for
/// a text without a token to score.
Continuation encode_continuation(const Tokenizer& tokenizer,
                                 std::string_view context,
                                 std::string_view text);

/// Throws Error if what is scored does not fit the context or an id not the vocabulary.
void check_continuation(const Continuation& continuation, const ModelConfig& config);

struct Likelihood {
  double log_likelihood = 0;  ///< nats, sum over the scored tokens
  bool is_greedy = true;      ///< each scored token is the most likely one
};

struct LikelihoodOptions {
  int64_t batch = 8;  ///< continuations of one length in a forward pass
  RoutingPlan plan = RoutingPolicy::all();
  at::ScalarType compute_dtype = at::kFloat;
  std::function<bool()> stop = {};  ///< asked before each batch; true ends the count early
  /// Called after each batch with the continuations that are scored and all of them.
  std::function<void(int64_t done, int64_t all)> on_progress = {};
};

/// Likelihoods by continuation, in order; after a stop those before the first that is not scored. A
/// continuation longer than max_seq_len loses tokens from its left. The batch changes at most the
/// rounding, and with packed weights nothing; under threshold_top_k it changes the selected experts
/// (depends_on_batch). log_softmax runs in float32, sums in float64. Throws
/// Error as check_continuation does.
std::vector<Likelihood> score_continuations(Transformer& model,
                                            const std::vector<Continuation>& continuations,
                                            const LikelihoodOptions& options);

}  // namespace dsmoe
