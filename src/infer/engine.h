#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "infer/decode_steps.h"
#include "infer/sequence.h"
#include "model/expert_usage.h"
#include "model/moe/routing_plan.h"
#include "model/transformer.h"

namespace dsmoe {

/// Self-speculation: the model under `plan` drafts the next tokens of a sequence one by one; then
/// one pass under the request's plan gives the logits after each of them, and draws from these
/// accept or reject. Draft and draw use the same random numbers, and the bits of a packed token do
/// not depend on other tokens: the completion is the same, token by token, at any temperature.
struct Speculation {
  RoutingPlan plan = RoutingPolicy::all();  ///< draft policy, of fewer experts
  int64_t n_tokens = 4;                     ///< drafted before each pass that accepts or rejects
};

struct EngineOptions {
  RoutingPlan plan = RoutingPolicy::all();  ///< of requests without their own
  at::ScalarType compute_dtype = at::kFloat;
  /// Requests join and leave between passes, which mix prompts and generated tokens: needs packed
  /// weights and plans without threshold_top_k. False: requests start together, in passes with
  /// equally many tokens of each; the next requests start when these have ended.
  bool continuous = false;
  std::optional<Speculation> speculation = {};                    ///< needs `continuous`
  int64_t max_batch = 64;                                         ///< sequences at once
  int64_t kv_budget_bytes = std::numeric_limits<int64_t>::max();  ///< keys and values of all
  /// Prompt tokens of one continuous pass; a multiple of kPromptBlock.
  int64_t prompt_chunk = 256;
  /// Called with whole UTF-8 characters as they come; a text that may still become a stop text is
  /// held back.
  std::function<void(size_t request, const std::string& text)> on_text = {};
  std::function<void(size_t request, const Completion& completion)> on_completion = {};
  std::function<bool()> stop = {};  ///< asked before each step; true ends all with kInterrupted
};

struct EngineStats {
  int64_t steps = 0;
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
  int64_t decode_tokens = 0;    ///< generated, but for each sequence's first
  int64_t drafted_tokens = 0;   ///< by speculation
  int64_t accepted_tokens = 0;  ///< of these
  int64_t largest_batch = 0;    ///< sequences of one step
  int64_t peak_kv_bytes = 0;    ///< reserved at once
  double prefill_seconds = 0;   ///< passes of steps with a prompt in them
  double decode_seconds = 0;    ///< passes of the other steps, drafts included
  double seconds = 0;           ///< whole steps
  ExpertUsage usage;            ///< of the passes' tokens that are not of a prompt, without drafts
};

/// Generates completions. One step admits requests, makes one pass over the next tokens of all
/// live sequences, draws from its logits, hands out text, and retires what has ended. One request,
/// many, and speculation are the same steps.
///
/// A request's keys and values are reserved when it is admitted, for its prompt and max_tokens, so
/// that every admitted request can finish. Requests are admitted in the order they were submitted.
/// Under threshold_top_k (depends_on_batch) a completion changes with the requests beside it; else
/// only its rounding may, and with packed weights nothing does. Not for several threads at once.
class Engine {
 public:
  /// The tokenizer outlives this. Throws Error for options out of range, and with `continuous` for
  /// a plan under which completions depend on the other requests.
  Engine(Transformer model, const Tokenizer& tokenizer, EngineOptions options);

  /// Adds a request; returns its number, from 0. Throws Error as check_request does, for a plan
  /// that does not fit, and for a request that the budget cannot hold alone.
  size_t submit(const GenerateRequest& request);
  /// One step; false if there was nothing left to do.
  bool step();

  const EngineStats& stats() const { return stats_; }

 private:
  struct Entry {
    size_t request;
    RoutingPlan plan;
    int64_t capacity;  // tokens to reserve
    Sequence sequence;
    std::vector<int32_t> draft = {};  // drafted tokens after those of the sequence
  };
  // By live sequence, the logits [n, vocab_size] after its last token and after each drafted one;
  // undefined where its prompt goes on.
  using Logits = std::vector<at::Tensor>;

  void check_plan(const RoutingPlan& plan) const;
  bool generates(size_t index) const;  // its prompt is in the cache
  static int32_t last_id(const Entry& entry);
  void admit();
  void admit_together();
  void draft();
  Logits run_batch();
  Logits run_segments();
  std::vector<PassSegment> plan_segments() const;
  void run_pass(const std::vector<PassSegment>& segments, Logits& logits);
  ModelOutput forward(const std::vector<PassSegment>& segments,
                      const std::vector<int64_t>& ids,
                      const std::vector<int64_t>& logits_at,
                      const RoutingPlan& plan);
  void extend(size_t index, const at::Tensor& logits);
  void emit(size_t request, const std::string& text) const;
  void retire();
  void interrupt();

  Transformer model_;
  const Tokenizer& tokenizer_;
  ExcludedIds excluded_;
  EngineOptions options_;
  KvCache cache_;                     // one sequence for each of live_
  std::optional<DecodeSteps> steps_;  // of sequences that started together
  std::vector<Entry> live_;
  std::deque<Entry> waiting_;
  size_t n_submitted_ = 0;
  EngineStats stats_;
};

struct Generation {
  std::vector<Completion> completions;  ///< by request
  EngineStats stats;
};

/// Runs requests to their end. Sets the options' on_completion; throws Error as Engine does, before
/// the first step.
Generation generate(Transformer model,
                    const Tokenizer& tokenizer,
                    EngineOptions options,
                    const std::vector<GenerateRequest>& requests);

}  // namespace dsmoe
