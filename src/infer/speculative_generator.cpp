#include "infer/speculative_generator.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "common/error.h"
#include "model/moe/batch_dependence.h"

namespace dsmoe {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

}  // namespace

SpeculativeGenerator::SpeculativeGenerator(Transformer model,
                                           const Tokenizer& tokenizer,
                                           SpeculationOptions options)
    : model_(std::move(model)),
      tokenizer_(tokenizer),
      excluded_(ids_without_token(tokenizer, model_->config().vocab_size)),
      options_(std::move(options)) {
  if (options_.draft_tokens < 1) {
    throw Error(fmt::format("generate: expected drafts of at least 1 token, got {}",
                            options_.draft_tokens));
  }
  require_batch_independence(options_.plan, model_->config(), "--draft");
  model_->eval();
}

Completion SpeculativeGenerator::generate(const GenerateRequest& request) {
  const at::NoGradGuard no_grad;
  check_request(request, model_->config());
  Sequence sequence(request, tokenizer_, excluded_);
  const int64_t capacity =
      std::min(sequence.n_prompt() + request.max_tokens, model_->config().max_seq_len);
  auto cache = model_->make_cache(1, capacity, options_.compute_dtype);
  prefill(sequence, cache);
  while (!sequence.is_finished()) {
    if (options_.stop && options_.stop()) {
      const auto shown = sequence.interrupt();
      if (options_.on_text && !shown.empty()) options_.on_text(shown);
      break;
    }
    const auto start = Clock::now();
    // The last token of all is never fed back, so nothing follows a guess of it.
    const int64_t n_most = std::min(options_.draft_tokens, capacity - sequence.n_ids() - 1);
    check(guess(sequence, n_most, cache), sequence, cache);
    stats_.decode_seconds += seconds_since(start);
  }
  return sequence.completion();
}

// The next ids of the cache's only sequence; logits after each, after a prompt's last only.
ModelOutput SpeculativeGenerator::run_pass(const std::vector<int32_t>& ids,
                                           bool is_prompt,
                                           const RoutingPlan& plan,
                                           KvCache& cache) {
  const auto n_tokens = static_cast<int64_t>(ids.size());
  std::vector<int64_t> logits_at;
  for (int64_t i = is_prompt ? n_tokens - 1 : 0; i < n_tokens; ++i) logits_at.push_back(i);
  const std::vector<int64_t> tokens(ids.begin(), ids.end());
  auto output = model_->forward(at::tensor(tokens, at::kLong).unsqueeze(0),
                                plan,
                                {.compute_dtype = options_.compute_dtype,
                                 .cache = &cache,
                                 .segments = {{0, n_tokens, is_prompt}},
                                 .logits_at = logits_at});
  cache.advance_segments();
  return output;
}

void SpeculativeGenerator::prefill(Sequence& sequence, KvCache& cache) {
  const auto start = Clock::now();
  const auto output = run_pass(sequence.ids(), /*is_prompt=*/true, options_.plan, cache);
  stats_.prompt_tokens += sequence.n_prompt();
  stats_.prefill_seconds += seconds_since(start);
  extend(output.logits[0][0], sequence);
}

// Leaves the cache as long as it was: what guesses wrote is overwritten by the pass that checks.
std::vector<int32_t> SpeculativeGenerator::guess(const Sequence& sequence,
                                                 int64_t n_most,
                                                 KvCache& cache) {
  const int64_t n_cached = cache.length(0);
  auto sampler = sequence.sampler();
  auto ids = sequence.ids();
  const auto& special = tokenizer_.special_tokens();
  for (int64_t i = 0; i < n_most && !special.is_eos(ids.back()); ++i) {
    const auto output = run_pass({ids.back()}, /*is_prompt=*/false, options_.draft, cache);
    const auto row = output.logits.to(at::kFloat).contiguous();  // [1, 1, vocab_size]
    ids.push_back(
        sampler.sample({row.const_data_ptr<float>(), static_cast<size_t>(row.numel())}, ids));
  }
  cache.rewind(0, n_cached);
  stats_.drafted_tokens += static_cast<int64_t>(ids.size()) - sequence.n_ids();
  return {ids.begin() + sequence.n_ids(), ids.end()};
}

// Draws after the last token and after each guess, as far as the guesses are right.
void SpeculativeGenerator::check(const std::vector<int32_t>& guesses,
                                 Sequence& sequence,
                                 KvCache& cache) {
  std::vector<int32_t> ids{sequence.ids().back()};
  ids.insert(ids.end(), guesses.begin(), guesses.end());
  const auto output = run_pass(ids, /*is_prompt=*/false, options_.plan, cache);
  stats_.usage.add(output);
  for (size_t i = 0; i < ids.size() && !sequence.is_finished(); ++i) {
    extend(output.logits[static_cast<int64_t>(i)][0], sequence);
    stats_.decode_tokens += 1;
    if (i == guesses.size() || sequence.ids().back() != guesses[i]) break;
    stats_.accepted_tokens += 1;
  }
  cache.rewind(0, sequence.n_ids() - 1);
}

// logits [vocab_size]
void SpeculativeGenerator::extend(const at::Tensor& logits, Sequence& sequence) {
  const auto shown = sequence.extend(logits, tokenizer_, model_->config().max_seq_len);
  stats_.generated_tokens += 1;
  if (options_.on_text && !shown.empty()) options_.on_text(shown);
}

}  // namespace dsmoe
