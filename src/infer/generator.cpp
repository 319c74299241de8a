#include "infer/generator.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "common/error.h"
#include "infer/completion_text.h"

namespace dsmoe {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// One completion while it grows.
struct Sequence {
  size_t request;
  size_t n_prompt;
  std::vector<int32_t> ids;  // prompt and generated
  Sampler sampler;
  CompletionText text;
  size_t n_decoded_bytes;  // of the text of all ids
  std::optional<FinishReason> finish_reason;
};

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

Sequence begin_sequence(const GenerateRequest& request, size_t index, const Tokenizer& tokenizer) {
  return {.request = index,
          .n_prompt = request.prompt.size(),
          .ids = request.prompt,
          .sampler = Sampler(request.sampling, static_cast<int64_t>(index)),
          .text = CompletionText(request.stop),
          .n_decoded_bytes = tokenizer.decode(request.prompt).size(),
          .finish_reason = std::nullopt};
}

// The prompts, padded on the right: [n_sequences, longest].
at::Tensor pad_prompts(const std::vector<Sequence>& sequences) {
  size_t longest = 0;
  for (const auto& sequence : sequences) longest = std::max(longest, sequence.ids.size());
  auto tokens = at::full(
      {static_cast<int64_t>(sequences.size()), static_cast<int64_t>(longest)}, 0, at::kLong);
  auto* row = tokens.data_ptr<int64_t>();
  for (const auto& sequence : sequences) {
    std::copy(sequence.ids.begin(), sequence.ids.end(), row);
    row += longest;
  }
  return tokens;
}

at::Tensor last_ids(const std::vector<Sequence>& sequences) {
  std::vector<int64_t> ids;
  for (const auto& sequence : sequences) ids.push_back(sequence.ids.back());
  return at::tensor(ids, at::kLong).unsqueeze(1);  // [n_sequences, 1]
}

// Draws the next token of a sequence from its logits [vocab_size] and notes whether it ends there.
std::string extend(Sequence& sequence,
                   const at::Tensor& logits,
                   const GenerateRequest& request,
                   const Tokenizer& tokenizer,
                   int64_t max_seq_len) {
  const auto row = logits.to(at::kFloat).contiguous();
  const int32_t id = sequence.sampler.sample(
      {row.const_data_ptr<float>(), static_cast<size_t>(row.numel())}, sequence.ids);
  sequence.ids.push_back(id);
  if (tokenizer.eos_id() == id) {
    sequence.finish_reason = FinishReason::kEos;
    return sequence.text.finish();
  }
  // Ids past the tokenizer's are padding of the vocabulary and have no text.
  std::string bytes;
  if (id < tokenizer.vocab_size()) {
    const auto whole = tokenizer.decode(sequence.ids);
    bytes = whole.substr(sequence.n_decoded_bytes);
    sequence.n_decoded_bytes = whole.size();
  }
  auto shown = sequence.text.push(bytes);
  const auto n_generated = static_cast<int64_t>(sequence.ids.size() - sequence.n_prompt);
  if (sequence.text.is_stopped()) {
    sequence.finish_reason = FinishReason::kStop;
  } else if (n_generated >= request.max_tokens) {
    sequence.finish_reason = FinishReason::kLength;
  } else if (static_cast<int64_t>(sequence.ids.size()) >= max_seq_len) {
    sequence.finish_reason = FinishReason::kContext;
  }
  if (sequence.finish_reason) shown += sequence.text.finish();
  return shown;
}

}  // namespace

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

// What one generate() call works on: the sequences that go on, and their cache.
struct Generator::Batch {
  std::vector<Sequence> live;
  std::optional<KvCache> cache;
  at::Tensor logits;  // [n_live, vocab_size], of each sequence's last token
};

Generator::Generator(Transformer model, const Tokenizer& tokenizer, GeneratorOptions options)
    : model_(std::move(model)), tokenizer_(tokenizer), options_(std::move(options)) {
  model_->eval();
}

std::vector<Completion> Generator::generate(const std::vector<GenerateRequest>& requests) {
  const at::NoGradGuard no_grad;
  stats_ = {};
  std::vector<Completion> completions(requests.size());
  if (requests.empty()) return completions;
  auto batch = prefill(requests);
  while (!batch.live.empty()) {
    const bool interrupted = options_.stop && options_.stop();
    std::vector<int64_t> going_on;
    for (size_t i = 0; i < batch.live.size(); ++i) {
      auto& sequence = batch.live[i];
      std::string shown;
      if (interrupted) {
        sequence.finish_reason = FinishReason::kInterrupted;
        shown = sequence.text.finish();
      } else {
        shown = extend(sequence,
                       batch.logits[static_cast<int64_t>(i)],
                       requests[sequence.request],
                       tokenizer_,
                       model_->config().max_seq_len);
        stats_.generated_tokens += 1;
      }
      if (options_.on_text && !shown.empty()) options_.on_text(sequence.request, shown);
      if (!sequence.finish_reason) going_on.push_back(static_cast<int64_t>(i));
    }
    retire(batch, going_on, completions);
    if (!batch.live.empty()) decode_step(batch);
  }
  return completions;
}

Generator::Batch Generator::prefill(const std::vector<GenerateRequest>& requests) {
  const auto start = Clock::now();
  const auto& config = model_->config();
  Batch batch;
  int64_t capacity = 0;
  std::vector<int64_t> lengths;
  for (size_t i = 0; i < requests.size(); ++i) {
    check_request(requests[i], config);
    batch.live.push_back(begin_sequence(requests[i], i, tokenizer_));
    lengths.push_back(static_cast<int64_t>(requests[i].prompt.size()));
    capacity = std::max(capacity, lengths.back() + requests[i].max_tokens);
    stats_.prompt_tokens += lengths.back();
  }
  if (options_.use_cache) {
    batch.cache = model_->make_cache(static_cast<int64_t>(requests.size()),
                                     std::min(capacity, config.max_seq_len),
                                     options_.compute_dtype);
    const auto tokens = pad_prompts(batch.live);  // [n_live, longest]
    std::vector<int64_t> last;
    for (const int64_t length : lengths) last.push_back(length - 1);
    const auto output = model_->forward(
        tokens,
        options_.plan,
        {.compute_dtype = options_.compute_dtype, .cache = &*batch.cache, .logits_at = last});
    batch.cache->advance(lengths);
    batch.logits = output.logits.squeeze(1);
  } else {
    compute_whole(batch, nullptr);
  }
  stats_.prefill_seconds = seconds_since(start);
  return batch;
}

// One token for every live sequence.
void Generator::decode_step(Batch& batch) {
  const auto start = Clock::now();
  if (batch.cache) {
    const auto output =
        model_->forward(last_ids(batch.live),  // [n_live, 1]
                        options_.plan,
                        {.compute_dtype = options_.compute_dtype, .cache = &*batch.cache});
    batch.cache->advance(1);
    batch.logits = output.logits.squeeze(1);
    stats_.usage.add(output);
  } else {
    compute_whole(batch, &stats_.usage);
  }
  stats_.decode_tokens += static_cast<int64_t>(batch.live.size());
  stats_.decode_seconds += seconds_since(start);
}

// Without a cache: each sequence from its beginning.
void Generator::compute_whole(Batch& batch, ExpertUsage* usage) {
  std::vector<at::Tensor> rows;
  for (const auto& sequence : batch.live) {
    const auto tokens = at::tensor(std::vector<int64_t>(sequence.ids.begin(), sequence.ids.end()),
                                   at::kLong)
                            .unsqueeze(0);  // [1, seq]
    const auto output =
        model_->forward(tokens, options_.plan, {.compute_dtype = options_.compute_dtype});
    rows.push_back(output.logits[0][-1]);
    if (usage != nullptr) {
      usage->add(output, at::arange(tokens.size(1), at::kLong).eq(tokens.size(1) - 1).unsqueeze(0));
    }
  }
  batch.logits = at::stack(rows);
}

// Hands out the sequences that have ended and keeps the others.
void Generator::retire(Batch& batch,
                       const std::vector<int64_t>& going_on,
                       std::vector<Completion>& completions) {
  if (going_on.size() == batch.live.size()) return;
  std::vector<Sequence> live;
  for (auto& sequence : batch.live) {
    if (!sequence.finish_reason) {
      live.push_back(std::move(sequence));
      continue;
    }
    auto& completion = completions[sequence.request];
    completion.text = sequence.text.text();
    completion.ids.assign(sequence.ids.begin() + static_cast<int64_t>(sequence.n_prompt),
                          sequence.ids.end());
    completion.finish_reason = *sequence.finish_reason;
  }
  batch.live = std::move(live);
  if (batch.cache && !batch.live.empty()) batch.cache->keep(going_on);
}

}  // namespace dsmoe
