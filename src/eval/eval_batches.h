#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "eval/eval_text.h"
#include "eval/perplexity.h"

namespace dsmoe {

/// Input and scored targets of one forward pass; all [batch, length].
struct EvalBatch {
  at::Tensor tokens;                ///< int64
  at::Tensor targets;               ///< int64, the token after each
  at::Tensor counts;                ///< bool, targets that are scored
  std::vector<size_t> groups = {};  ///< [batch], of each row's sequence, see EvalText
};

/// The forward passes over a text in which each target is scored once; see evaluate_perplexity.
class EvalBatches {
 public:
  /// Keeps a reference to the text. Throws Error as evaluate_perplexity does.
  EvalBatches(const EvalText& text, const ModelConfig& config, const PerplexityOptions& options);

  /// None at the end.
  std::optional<EvalBatch> next();

  int64_t n_windows() const { return static_cast<int64_t>(windows_.size()); }
  int64_t n_done() const { return static_cast<int64_t>(next_); }  ///< windows that next() returned

 private:
  // Inputs [begin, begin + length) of a sequence; the last n_scored of its targets are scored.
  struct Window {
    size_t sequence;
    int64_t begin;
    int64_t length;
    int64_t n_scored;
  };

  void cut(int64_t window, int64_t stride);
  void take_part(int64_t part, int64_t n_parts);

  const EvalText& text_;
  size_t batch_;
  std::vector<Window> windows_;
  size_t next_ = 0;
};

}  // namespace dsmoe
