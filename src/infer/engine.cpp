#include "infer/engine.h"

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/error.h"
#include "model/moe/batch_dependence.h"

namespace dsmoe {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

double mebibytes(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

void check_options(const EngineOptions& options) {
  if (options.kv_budget_bytes < 1 || options.max_batch < 1) {
    throw Error("generate: expected a budget and a batch of at least 1");
  }
  if (options.prompt_chunk < kPromptBlock || options.prompt_chunk % kPromptBlock != 0) {
    throw Error(fmt::format("generate: expected prompts in parts of a multiple of {}, got {}",
                            kPromptBlock,
                            options.prompt_chunk));
  }
  if (options.speculation && !options.continuous) {
    throw Error("generate: expected continuous batching with speculation");
  }
  if (options.speculation && options.speculation->n_tokens < 1) {
    throw Error(fmt::format("generate: expected drafts of at least 1 token, got {}",
                            options.speculation->n_tokens));
  }
}

}  // namespace

Engine::Engine(Transformer model, const Tokenizer& tokenizer, EngineOptions options)
    : model_(std::move(model)),
      tokenizer_(tokenizer),
      excluded_(ids_without_token(tokenizer, model_->config().vocab_size)),
      options_(std::move(options)),
      cache_(model_->kv_shape(options_.compute_dtype)) {
  check_options(options_);
  check_plan(options_.plan);
  model_->eval();
}

void Engine::check_plan(const RoutingPlan& plan) const {
  const auto& config = model_->config();
  const bool has_moa = config.attention.kind == AttentionKind::kMoa;
  plan.validate(static_cast<size_t>(config.n_layers),
                has_moa ? config.attention.n_experts : 0,
                config.has_ffn_experts() ? config.ffn.n_experts : 0);
  if (!options_.continuous) return;
  require_batch_independence(plan, config, options_.speculation ? "--draft" : "--prompts");
}

size_t Engine::submit(const GenerateRequest& request) {
  const auto& config = model_->config();
  check_request(request, config);
  const auto plan = request.plan.value_or(options_.plan);
  check_plan(plan);
  const auto n_prompt = static_cast<int64_t>(request.prompt.size());
  // The last token is not fed back.
  const int64_t wanted = std::min(request.max_tokens, config.max_seq_len - n_prompt) - 1;
  const int64_t capacity = n_prompt + wanted;
  const int64_t bytes = capacity * model_->kv_shape(options_.compute_dtype).bytes_per_token();
  if (bytes > options_.kv_budget_bytes) {
    throw Error(fmt::format(
        "generate: expected keys and values of {} tokens within the budget of {:.2f} MiB, got "
        "{:.2f} MiB; raise --kv-budget or lower --max-tokens",
        capacity,
        mebibytes(options_.kv_budget_bytes),
        mebibytes(bytes)));
  }
  waiting_.push_back({n_submitted_, plan, capacity, Sequence(request, tokenizer_, excluded_)});
  return n_submitted_++;
}

bool Engine::step() {
  const at::NoGradGuard no_grad;
  if (options_.stop && options_.stop()) interrupt();
  const auto start = Clock::now();
  admit();
  if (live_.empty()) return false;
  const auto logits = options_.continuous ? run_segments() : run_batch();
  for (size_t i = 0; i < live_.size(); ++i) {
    if (logits[i].defined()) extend(i, logits[i]);
  }
  stats_.steps += 1;
  stats_.seconds += seconds_since(start);
  retire();
  return true;
}

// In order of submission, so that smaller requests cannot overtake a large one for ever.
void Engine::admit() {
  if (!options_.continuous) return admit_together();
  const int64_t bytes_per_token = model_->kv_shape(options_.compute_dtype).bytes_per_token();
  while (!waiting_.empty() && static_cast<int64_t>(live_.size()) < options_.max_batch) {
    auto& next = waiting_.front();
    const int64_t bytes = cache_.size_bytes() + next.capacity * bytes_per_token;
    if (bytes > options_.kv_budget_bytes) break;
    cache_.add_sequence(next.capacity);
    stats_.prompt_tokens += next.sequence.n_prompt();
    live_.push_back(std::move(next));
    waiting_.pop_front();
  }
  stats_.peak_kv_bytes = std::max(stats_.peak_kv_bytes, cache_.size_bytes());
}

// Requests of one plan, once all before them have ended.
void Engine::admit_together() {
  if (!live_.empty()) return;
  const int64_t bytes_per_token = model_->kv_shape(options_.compute_dtype).bytes_per_token();
  int64_t capacity = 0;
  while (!waiting_.empty() && static_cast<int64_t>(live_.size()) < options_.max_batch) {
    auto& next = waiting_.front();
    const int64_t widest = std::max(capacity, next.capacity);
    const auto n = static_cast<int64_t>(live_.size()) + 1;
    if (!live_.empty() && (n * widest * bytes_per_token > options_.kv_budget_bytes ||
                           !(next.plan == live_.front().plan))) {
      break;
    }
    capacity = widest;
    stats_.prompt_tokens += next.sequence.n_prompt();
    live_.push_back(std::move(next));
    waiting_.pop_front();
  }
  if (live_.empty()) return;
  cache_ = model_->make_cache(static_cast<int64_t>(live_.size()), capacity, options_.compute_dtype);
  steps_.emplace(model_, live_.front().plan, options_.compute_dtype);
  stats_.peak_kv_bytes = std::max(stats_.peak_kv_bytes, cache_.size_bytes());
}

// Draws after the last token and after each drafted one, as far as the draft is right.
void Engine::extend(size_t index, const at::Tensor& logits) {
  auto& sequence = live_[index].sequence;
  const auto drafted = std::exchange(live_[index].draft, {});
  for (size_t row = 0; row <= drafted.size() && !sequence.is_finished(); ++row) {
    const auto text = sequence.extend(
        logits[static_cast<int64_t>(row)], tokenizer_, model_->config().max_seq_len);
    emit(live_[index].request, text);
    stats_.generated_tokens += 1;
    if (sequence.n_ids() - sequence.n_prompt() > 1) stats_.decode_tokens += 1;
    if (row == drafted.size() || sequence.ids().back() != drafted[row]) break;
    stats_.accepted_tokens += 1;
  }
  // What a rejected draft wrote is overwritten by the next pass.
  if (options_.speculation) {
    cache_.rewind(static_cast<int64_t>(index), sequence.n_ids() - 1);
  }
}

void Engine::emit(size_t request, const std::string& text) const {
  if (options_.on_text && !text.empty()) options_.on_text(request, text);
}

void Engine::retire() {
  std::vector<int64_t> going_on;
  std::vector<Entry> live;
  for (size_t i = 0; i < live_.size(); ++i) {
    if (!live_[i].sequence.is_finished()) {
      going_on.push_back(static_cast<int64_t>(i));
      live.push_back(std::move(live_[i]));
    } else if (options_.on_completion) {
      options_.on_completion(live_[i].request, live_[i].sequence.completion());
    }
  }
  const bool some_ended = live.size() < live_.size();
  live_ = std::move(live);
  if (live_.empty()) {
    cache_ = KvCache(model_->kv_shape(options_.compute_dtype));
  } else if (some_ended) {
    cache_.keep(going_on);
  }
}

void Engine::interrupt() {
  for (auto& next : waiting_) live_.push_back(std::move(next));
  waiting_.clear();
  for (auto& entry : live_) emit(entry.request, entry.sequence.interrupt());
  retire();
}

Generation generate(Transformer model,
                    const Tokenizer& tokenizer,
                    EngineOptions options,
                    const std::vector<GenerateRequest>& requests) {
  Generation result;
  result.completions.resize(requests.size());
  options.on_completion = [&](size_t request, const Completion& completion) {
    result.completions[request] = completion;
  };
  Engine engine(std::move(model), tokenizer, std::move(options));
  for (const auto& request : requests) engine.submit(request);
  while (engine.step()) {
  }
  result.stats = engine.stats();
  return result;
}

}  // namespace dsmoe
