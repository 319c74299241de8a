#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "data/tokenizer.h"
#include "infer/completion_text.h"
#include "infer/incremental_decoder.h"
#include "infer/sampler.h"
#include "model/model_config.h"
#include "model/moe/routing_plan.h"

namespace dsmoe {

struct GenerateRequest {
  std::vector<int32_t> prompt;  ///< ids, BOS included; at least one
  int64_t max_tokens = 128;
  SamplingConfig sampling;
  std::optional<RoutingPlan> plan = {};  ///< of its passes; the engine's where it has none
  /// Texts that end the completion; they are not part of it. Special tokens count as spelled.
  std::vector<std::string> stop;
  int64_t draw = 0;  ///< which completion of its seed: draws of unlike numbers differ
};

/// Throws Error for an empty prompt, an id outside the vocabulary, a prompt that leaves no room in
/// the context (max_seq_len) and options out of range.
void check_request(const GenerateRequest& request, const ModelConfig& config);

enum class FinishReason { kEos, kStop, kLength, kContext, kInterrupted };
const char* to_string(FinishReason reason);

struct Completion {
  std::string text;  ///< of the generated tokens, without EOS and stop text
  std::vector<int32_t>
      ids;  ///< generated, with the EOS or the tokens of the stop text that ended it
  FinishReason finish_reason = FinishReason::kLength;
};

/// Rows of a model that pad its vocabulary: ids below `vocab_size` without a token that end no
/// text either.
ExcludedIds ids_without_token(const Tokenizer& tokenizer, int64_t vocab_size);

/// Draws a token from logits [vocab_size] on any device and of any type.
int32_t draw(Sampler& sampler, const at::Tensor& logits, std::span<const int32_t> seen);

/// One completion while it grows.
class Sequence {
 public:
  /// excluded: ids_without_token of the tokenizer, which outlives this.
  Sequence(const GenerateRequest& request, const Tokenizer& tokenizer, ExcludedIds excluded);

  /// Draws the next token from its logits [vocab_size] and notes whether the completion ends there.
  /// Returns the text that may be shown now.
  std::string extend(const at::Tensor& logits, const Tokenizer& tokenizer, int64_t max_seq_len);
  /// Ends it early; returns what was held back.
  std::string interrupt();

  bool is_finished() const { return finish_reason_.has_value(); }
  const std::vector<int32_t>& ids() const { return ids_; }  ///< prompt and generated
  int64_t n_ids() const { return static_cast<int64_t>(ids_.size()); }
  int64_t n_prompt() const { return n_prompt_; }
  Completion completion() const;
  const Sampler& sampler() const { return sampler_; }  ///< as it is before the next draw

 private:
  int64_t n_prompt_;
  int64_t max_tokens_;
  std::vector<int32_t> ids_;
  Sampler sampler_;
  CompletionText text_;
  IncrementalDecoder decoder_;
  std::optional<FinishReason> finish_reason_;
};

}  // namespace dsmoe
