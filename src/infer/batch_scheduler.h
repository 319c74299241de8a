#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "data/tokenizer.h"
#include "infer/sequence.h"
#include "model/expert_usage.h"
#include "model/moe/routing_plan.h"
#include "model/transformer.h"

namespace dsmoe {

struct SchedulerOptions {
  RoutingPlan plan = RoutingPolicy::all();
  at::ScalarType compute_dtype = at::kFloat;
  int64_t kv_budget_bytes = int64_t{1} << 30;  ///< of all sequences' keys and values
  int64_t max_batch = 64;                      ///< sequences at once
  int64_t prompt_chunk = 256;  ///< prompt tokens of one step; a multiple of kPromptBlock
  /// Called with whole UTF-8 characters as they come.
  std::function<void(size_t request, const std::string& text)> on_text = {};
  std::function<void(size_t request, const Completion& completion)> on_completion = {};
  std::function<bool()> stop = {};  ///< asked before each step; true ends all with kInterrupted
};

struct SchedulerStats {
  int64_t steps = 0;
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
  int64_t largest_batch = 0;  ///< sequences of one step
  int64_t peak_kv_bytes = 0;  ///< reserved at once
  double seconds = 0;         ///< in steps
  ExpertUsage usage;          ///< of generated tokens
};

/// Continuous batching: requests join and leave between steps. One step is one forward pass over
/// the last token of every sequence that generates and over the next part of the prompts that are
/// not done, so that a long prompt delays nobody for its whole length.
///
/// A request's keys and values are reserved when it joins, for its prompt and max_tokens: what is
/// running always ends, and the reservations together never exceed the budget. Requests join in the
/// order they were submitted. A request's tokens do not depend on its company; a plan under which
/// they would (depends_on_batch) is refused. Not for several threads at once.
class BatchScheduler {
 public:
  /// A model of packed weights. Throws Error for options out of range and for a plan with
  /// threshold_top_k.
  BatchScheduler(Transformer model, const Tokenizer& tokenizer, SchedulerOptions options);

  /// Adds a request; returns its number, from 0. Throws Error as check_request does, and for one
  /// that the budget cannot hold alone.
  size_t submit(const GenerateRequest& request);
  /// One step; false if there was nothing left to do.
  bool step();

  const SchedulerStats& stats() const { return stats_; }

 private:
  struct Waiting {
    size_t request;
    int64_t capacity;  // tokens to reserve
    Sequence sequence;
  };
  struct Live {
    size_t request;
    Sequence sequence;
  };

  void admit();
  std::vector<PassSegment> plan_pass() const;
  void run_pass(const std::vector<PassSegment>& segments);
  void extend(const std::vector<int64_t>& sequences, const at::Tensor& logits);
  void count_usage(const ModelOutput& output, const std::vector<PassSegment>& segments);
  void retire();
  void interrupt();

  Transformer model_;
  const Tokenizer& tokenizer_;
  ExcludedIds excluded_;
  SchedulerOptions options_;
  KvCache cache_;  // one sequence for each of live_
  std::vector<Live> live_;
  std::deque<Waiting> waiting_;
  size_t n_submitted_ = 0;
  SchedulerStats stats_;
};

}  // namespace dsmoe
