#include "infer/sequence.h"

#include <fmt/format.h>

#include <utility>

#include "common/error.h"

namespace dsmoe {

void check_request(const GenerateRequest& request, const ModelConfig& config) {
  request.sampling.validate();
  if (request.prompt.empty()) throw Error("generate: expected a prompt of at least one token");
  if (request.max_tokens < 1) throw Error("generate: expected max_tokens of at least 1");
  if (static_cast<int64_t>(request.prompt.size()) >= config.max_seq_len) {
    throw Error(fmt::format("generate: a prompt of {} tokens leaves no room in the context of {}",
                            request.prompt.size(),
                            config.max_seq_len));
  }
  for (const auto& stop : request.stop) {
    if (stop.empty()) throw Error("generate: expected stop texts of at least one character");
  }
  for (const int32_t id : request.prompt) {
    if (id < 0 || id >= config.vocab_size) {
      throw Error(fmt::format(
          "generate: token id {} is outside the vocabulary of {}", id, config.vocab_size));
    }
  }
}

const char* to_string(FinishReason reason) {
  switch (reason) {
    case FinishReason::kEos:
      return "eos";
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kContext:
      return "context";
    case FinishReason::kInterrupted:
      return "interrupted";
  }
  return "";
}

ExcludedIds ids_without_token(const Tokenizer& tokenizer, int64_t vocab_size) {
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < vocab_size; ++id) {
    if (!tokenizer.has_token(id) && !tokenizer.special_tokens().is_eos(id)) ids.push_back(id);
  }
  return std::make_shared<const std::vector<int32_t>>(std::move(ids));
}

int32_t draw(Sampler& sampler, const at::Tensor& logits, std::span<const int32_t> seen) {
  const auto row = logits.to(at::kFloat).contiguous().cpu();
  return sampler.sample({row.const_data_ptr<float>(), static_cast<size_t>(row.numel())}, seen);
}

Sequence::Sequence(const GenerateRequest& request, const Tokenizer& tokenizer, ExcludedIds excluded)
    : n_prompt_(static_cast<int64_t>(request.prompt.size())),
      max_tokens_(request.max_tokens),
      ids_(request.prompt),
      sampler_(request.sampling, request.draw, std::move(excluded)),
      text_(request.stop, &tokenizer.special_tokens()),
      decoder_(tokenizer, request.prompt) {}

std::string Sequence::extend(const at::Tensor& logits,
                             const Tokenizer& tokenizer,
                             int64_t max_seq_len) {
  const int32_t id = draw(sampler_, logits, ids_);
  ids_.push_back(id);
  if (tokenizer.special_tokens().is_eos(id)) {
    finish_reason_ = FinishReason::kEos;
    return text_.finish();
  }
  const auto* added = tokenizer.special_tokens().find(id);
  const bool is_hidden = added != nullptr && added->special;
  auto shown = is_hidden ? text_.push_hidden(added->content) : text_.push(decoder_.push(id));
  if (text_.is_stopped()) {
    finish_reason_ = FinishReason::kStop;
  } else if (n_ids() - n_prompt_ >= max_tokens_) {
    finish_reason_ = FinishReason::kLength;
  } else if (n_ids() >= max_seq_len) {
    finish_reason_ = FinishReason::kContext;
  }
  if (finish_reason_) shown += text_.finish();
  return shown;
}

std::string Sequence::interrupt() {
  finish_reason_ = FinishReason::kInterrupted;
  return text_.finish();
}

Completion Sequence::completion() const {
  return {text_.text(),
          std::vector<int32_t>(ids_.begin() + n_prompt_, ids_.end()),
          finish_reason_.value_or(FinishReason::kInterrupted)};
}

}  // namespace dsmoe
