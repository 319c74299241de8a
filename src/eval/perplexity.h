#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "eval/eval_text.h"
#include "model/expert_usage.h"
#include "model/moe/routing_plan.h"
#include "model/transformer.h"

namespace dsmoe {

struct EvalBatch;

/// Called after each forward pass with its input and output.
using PassObserver = std::function<void(const ModelOutput& output, const EvalBatch& batch)>;

struct PerplexityOptions {
  int64_t window = 0;  ///< tokens per forward pass and sequence; 0: the model's max_seq_len
  int64_t stride = 0;  ///< new tokens per window; 0: window, no overlap
  int64_t batch = 8;   ///< windows per forward pass; under threshold_top_k it changes the result
  RoutingPlan plan = RoutingPolicy::all();
  at::ScalarType compute_dtype = at::kFloat;
  int64_t part = 0;     ///< windows that are scored here: every n_parts-th from this one on
  int64_t n_parts = 1;  ///< parts of the text; their sums add up to the whole's
  std::function<bool()> stop = {};  ///< asked before each batch; true ends the count early
  PassObserver on_pass = {};        ///< not called by compare_predictions
  /// Called after each forward pass with the windows that are scored and all of them.
  std::function<void(int64_t done, int64_t all)> on_progress = {};
};

/// Sums, so that parts of a text add.
struct PerplexityResult {
  double nats_total = 0;  ///< sum over scored tokens of -ln p, accumulated in float64
  int64_t tokens_scored = 0;
  int64_t n_bytes = 0;  ///< of the text that was scored
  ExpertUsage usage;
  double seconds = 0;
  bool complete = true;  ///< false after a stop
  /// The same sums for each of several texts, without seconds; empty: one text.
  std::vector<PerplexityResult> groups = {};

  /// A result without tokens for this text: its bytes, and those of its groups.
  static PerplexityResult of(const EvalText& text);
  /// Adds the batch's targets; log_softmax runs in float32.
  void add(const ModelOutput& output, const EvalBatch& batch);
  double nats_per_token() const;
  double perplexity() const;
  double bits_per_byte() const;

 private:
  void add(const at::Tensor& nats, const at::Tensor& counts, const ModelOutput& output);
};

/// Scores every token of every sequence but its first and but those that must not be scored
/// (document boundaries), each exactly once, with the context its window gives.
///
/// The first window of a sequence scores all its targets; window w starts at w * stride and scores
/// its last `stride`. The model is in evaluation mode for the call and no gradient is kept.
/// Throws Error if window or stride do not fit (stride <= window <= max_seq_len), if no token can
/// be scored, or if an id is outside the model's vocabulary.
PerplexityResult evaluate_perplexity(Transformer& model,
                                     const EvalText& text,
                                     const PerplexityOptions& options);

}  // namespace dsmoe
