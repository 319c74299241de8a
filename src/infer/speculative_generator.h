#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "infer/generator.h"
#include "infer/sequence.h"
#include "model/moe/routing_plan.h"
#include "model/transformer.h"

namespace dsmoe {

struct SpeculationOptions {
  RoutingPlan plan = RoutingPolicy::all();   ///< whose text it is
  RoutingPlan draft = RoutingPolicy::all();  ///< of fewer experts, guesses
  int64_t draft_tokens = 4;                  ///< guessed before each pass that checks
  at::ScalarType compute_dtype = at::kFloat;
  std::function<void(const std::string& text)> on_text = {};  ///< as GeneratorOptions'
  std::function<bool()> stop = {};                            ///< as GeneratorOptions'
};

/// `usage` is of the passes that check.
struct SpeculationStats : GenerateStats {
  int64_t drafted_tokens = 0;   ///< guessed
  int64_t accepted_tokens = 0;  ///< of them, those that were right
};

/// Generates one completion at a time by self-speculation: the model under `draft` guesses the next
/// tokens one by one, then one pass under `plan` gives the logits after each of them, and the draws
/// from those decide. A guess is drawn with the very random numbers of the draw that decides, and a
/// packed token's bits do not depend on its company: the completion is the Generator's, token by
/// token, at any temperature. `plan` must keep that (depends_on_batch is false); `draft` need not.
///
/// Needs packed weights.
class SpeculativeGenerator {
 public:
  /// Throws Error if draft_tokens is below 1 and for a plan with threshold_top_k.
  SpeculativeGenerator(Transformer model, const Tokenizer& tokenizer, SpeculationOptions options);

  /// Throws Error as check_request does.
  Completion generate(const GenerateRequest& request);
  const SpeculationStats& stats() const { return stats_; }

 private:
  ModelOutput run_pass(const std::vector<int32_t>& ids,
                       bool is_prompt,
                       const RoutingPlan& plan,
                       KvCache& cache);
  void prefill(Sequence& sequence, KvCache& cache);
  std::vector<int32_t> guess(const Sequence& sequence, int64_t n_most, KvCache& cache);
  void check(const std::vector<int32_t>& guesses, Sequence& sequence, KvCache& cache);
  void extend(const at::Tensor& logits, Sequence& sequence);

  Transformer model_;
  const Tokenizer& tokenizer_;
  ExcludedIds excluded_;
  SpeculationOptions options_;
  SpeculationStats stats_;
};

}  // namespace dsmoe
