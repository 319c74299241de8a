#include "infer/batch_scheduler.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "common/error.h"
#include "model/moe/batch_dependence.h"

namespace dsmoe {
namespace {

using Clock = std::chrono::steady_clock;

double mebibytes(int64_t bytes) { return static_cast<double>(bytes) / (1 << 20); }

void check_options(const SchedulerOptions& options) {
  if (options.kv_budget_bytes < 1 || options.max_batch < 1) {
    throw Error("generate: expected a budget and a batch of at least 1");
  }
  if (options.prompt_chunk < kPromptBlock || options.prompt_chunk % kPromptBlock != 0) {
    throw Error(fmt::format("generate: expected prompts in parts of a multiple of {}, got {}",
                            kPromptBlock,
                            options.prompt_chunk));
  }
}

}  // namespace

BatchScheduler::BatchScheduler(Transformer model,
                               const Tokenizer& tokenizer,
                               SchedulerOptions options)
    : model_(std::move(model)),
      tokenizer_(tokenizer),
      excluded_(ids_without_token(tokenizer, model_->config().vocab_size)),
      options_(std::move(options)),
      cache_(model_->kv_shape(options_.compute_dtype)) {
  check_options(options_);
  require_batch_independence(options_.plan, model_->config(), "--prompts");
  model_->eval();
}

size_t BatchScheduler::submit(const GenerateRequest& request) {
  const auto& config = model_->config();
  check_request(request, config);
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
  waiting_.push_back({n_submitted_, capacity, Sequence(request, tokenizer_, excluded_)});
  return n_submitted_++;
}

bool BatchScheduler::step() {
  const at::NoGradGuard no_grad;
  if (options_.stop && options_.stop()) interrupt();
  const auto start = Clock::now();
  admit();
  if (live_.empty()) return false;
  run_pass(plan_pass());
  stats_.steps += 1;
  stats_.seconds += std::chrono::duration<double>(Clock::now() - start).count();
  retire();
  return true;
}

// In order: a large request at the head waits for room rather than for ever.
void BatchScheduler::admit() {
  const int64_t bytes_per_token = model_->kv_shape(options_.compute_dtype).bytes_per_token();
  while (!waiting_.empty() && static_cast<int64_t>(live_.size()) < options_.max_batch) {
    auto& next = waiting_.front();
    const int64_t bytes = cache_.size_bytes() + next.capacity * bytes_per_token;
    if (bytes > options_.kv_budget_bytes) break;
    cache_.add_sequence(next.capacity);
    stats_.prompt_tokens += next.sequence.n_prompt();
    live_.push_back({next.request, std::move(next.sequence)});
    waiting_.pop_front();
  }
  stats_.peak_kv_bytes = std::max(stats_.peak_kv_bytes, cache_.size_bytes());
}

// Those that generate, then as much of the prompts as a step takes, oldest first.
std::vector<PassSegment> BatchScheduler::plan_pass() const {
  std::vector<PassSegment> segments;
  std::vector<PassSegment> prompts;
  int64_t room = options_.prompt_chunk;
  for (size_t i = 0; i < live_.size(); ++i) {
    const auto sequence = static_cast<int64_t>(i);
    const int64_t n_cached = cache_.length(sequence);
    const int64_t n_left = live_[i].sequence.n_ids() - n_cached;
    if (n_cached >= live_[i].sequence.n_prompt()) {
      segments.push_back({sequence, n_left, false});
      continue;
    }
    // A part that is not the last ends between blocks.
    const int64_t n = n_left <= room ? n_left : room / kPromptBlock * kPromptBlock;
    if (n > 0) prompts.push_back({sequence, n, true});
    room -= n;
  }
  segments.insert(segments.end(), prompts.begin(), prompts.end());
  return segments;
}

void BatchScheduler::run_pass(const std::vector<PassSegment>& segments) {
  std::vector<int64_t> ids;
  std::vector<int64_t> last;       // places in the pass whose logits give a token
  std::vector<int64_t> sequences;  // to which these belong
  for (const auto& segment : segments) {
    const auto& sequence = live_[static_cast<size_t>(segment.sequence)].sequence;
    const int64_t begin = cache_.length(segment.sequence);
    const auto first = sequence.ids().begin() + begin;
    ids.insert(ids.end(), first, first + segment.n_tokens);
    if (begin + segment.n_tokens < sequence.n_ids()) continue;
    last.push_back(static_cast<int64_t>(ids.size()) - 1);
    sequences.push_back(segment.sequence);
  }
  stats_.largest_batch = std::max(stats_.largest_batch, static_cast<int64_t>(segments.size()));
  const bool any_logits = !last.empty();
  const auto output = model_->forward(at::tensor(ids, at::kLong).unsqueeze(0),
                                      options_.plan,
                                      {.compute_dtype = options_.compute_dtype,
                                       .cache = &cache_,
                                       .segments = segments,
                                       .logits_at = last,
                                       .logits = any_logits});
  cache_.advance_segments();
  count_usage(output, segments);
  if (any_logits) extend(sequences, output.logits.squeeze(1));
}

// Of the tokens that were generated.
void BatchScheduler::count_usage(const ModelOutput& output,
                                 const std::vector<PassSegment>& segments) {
  int64_t n_generating = 0;
  for (const auto& segment : segments) n_generating += segment.is_prompt ? 0 : segment.n_tokens;
  if (n_generating == 0) return;
  auto mask = at::zeros({1, output.features.size(1)}, at::kBool);
  mask.narrow(1, 0, n_generating).fill_(true);
  stats_.usage.add(output, mask);
}

// logits [sequences.size(), vocab_size]
void BatchScheduler::extend(const std::vector<int64_t>& sequences, const at::Tensor& logits) {
  for (size_t i = 0; i < sequences.size(); ++i) {
    auto& [request, sequence] = live_[static_cast<size_t>(sequences[i])];
    const auto shown =
        sequence.extend(logits[static_cast<int64_t>(i)], tokenizer_, model_->config().max_seq_len);
    stats_.generated_tokens += 1;
    if (options_.on_text && !shown.empty()) options_.on_text(request, shown);
  }
}

void BatchScheduler::retire() {
  std::vector<int64_t> going_on;
  std::vector<Live> live;
  for (size_t i = 0; i < live_.size(); ++i) {
    if (!live_[i].sequence.is_finished()) {
      going_on.push_back(static_cast<int64_t>(i));
      live.push_back(std::move(live_[i]));
    } else if (options_.on_completion) {
      options_.on_completion(live_[i].request, live_[i].sequence.completion());
    }
  }
  live_ = std::move(live);
  if (static_cast<int64_t>(going_on.size()) < cache_.n_sequences()) cache_.keep(going_on);
}

void BatchScheduler::interrupt() {
  for (auto& next : waiting_) live_.push_back({next.request, std::move(next.sequence)});
  waiting_.clear();
  for (auto& [request, sequence] : live_) {
    const auto shown = sequence.interrupt();
    if (options_.on_text && !shown.empty()) options_.on_text(request, shown);
    if (options_.on_completion) options_.on_completion(request, sequence.completion());
  }
  live_.clear();
  cache_.keep({});
}

}  // namespace dsmoe
