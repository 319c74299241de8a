#include "infer/generator.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <chrono>
#include <optional>

namespace dsmoe {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

struct LiveSequence {
  size_t request;
  Sequence sequence;
};

// The prompts, padded on the right: [n_sequences, longest].
at::Tensor pad_prompts(const std::vector<LiveSequence>& sequences) {
  size_t longest = 0;
  for (const auto& [request, sequence] : sequences)
    longest = std::max(longest, sequence.ids().size());
  auto tokens = at::full(
      {static_cast<int64_t>(sequences.size()), static_cast<int64_t>(longest)}, 0, at::kLong);
  auto* row = tokens.data_ptr<int64_t>();
  for (const auto& [request, sequence] : sequences) {
    std::copy(sequence.ids().begin(), sequence.ids().end(), row);
    row += longest;
  }
  return tokens;
}

std::vector<int64_t> last_ids(const std::vector<LiveSequence>& sequences) {
  std::vector<int64_t> ids;
  for (const auto& [request, sequence] : sequences) ids.push_back(sequence.ids().back());
  return ids;
}

}  // namespace

// What one generate() call works on: the sequences that go on, and their cache.
struct Generator::Batch {
  std::vector<LiveSequence> live;
  std::optional<KvCache> cache;
  at::Tensor logits;  // [n_live, vocab_size], of each sequence's last token
};

Generator::Generator(Transformer model, const Tokenizer& tokenizer, GeneratorOptions options)
    : model_(std::move(model)),
      tokenizer_(tokenizer),
      excluded_(ids_without_token(tokenizer, model_->config().vocab_size)),
      options_(std::move(options)),
      steps_(model_, options_.plan, options_.compute_dtype) {
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
      auto& [request, sequence] = batch.live[i];
      const auto row = static_cast<int64_t>(i);
      const auto shown =
          interrupted
              ? sequence.interrupt()
              : sequence.extend(batch.logits[row], tokenizer_, model_->config().max_seq_len);
      if (!interrupted) stats_.generated_tokens += 1;
      if (options_.on_text && !shown.empty()) options_.on_text(request, shown);
      if (!sequence.is_finished()) going_on.push_back(row);
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
    batch.live.push_back({i, Sequence(requests[i], tokenizer_, excluded_)});
    lengths.push_back(static_cast<int64_t>(requests[i].prompt.size()));
    capacity = std::max(capacity, lengths.back() + requests[i].max_tokens);
    stats_.prompt_tokens += lengths.back();
  }
  if (options_.use_cache) {
    batch.cache = model_->make_cache(static_cast<int64_t>(requests.size()),
                                     std::min(capacity, config.max_seq_len),
                                     options_.compute_dtype);
    const auto tokens = pad_prompts(batch.live).to(model_->device());  // [n_live, longest]
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
    const auto& output = steps_.run(last_ids(batch.live), *batch.cache);
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
  for (const auto& [request, sequence] : batch.live) {
    const std::vector<int64_t> ids(sequence.ids().begin(), sequence.ids().end());
    const auto tokens = at::tensor(ids, at::kLong).unsqueeze(0).to(model_->device());  // [1, seq]
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
  std::vector<LiveSequence> live;
  for (auto& one : batch.live) {
    if (one.sequence.is_finished()) {
      completions[one.request] = one.sequence.completion();
    } else {
      live.push_back(std::move(one));
    }
  }
  batch.live = std::move(live);
  if (batch.cache && !batch.live.empty()) batch.cache->keep(going_on);
}

}  // namespace dsmoe
