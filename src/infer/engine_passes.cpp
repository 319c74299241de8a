// The passes of the engine: the tokens they take and the logits they return.
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "infer/engine.h"

namespace dsmoe {
namespace {

// Adds the time of its scope to `seconds`.
class Timer {
 public:
  explicit Timer(double& seconds) : seconds_(seconds) {}
  ~Timer() { seconds_ += std::chrono::duration<double>(Clock::now() - start_).count(); }

 private:
  using Clock = std::chrono::steady_clock;
  double& seconds_;
  Clock::time_point start_ = Clock::now();
};

}  // namespace

bool Engine::generates(size_t index) const {
  return cache_.length(static_cast<int64_t>(index)) >= live_[index].sequence.n_prompt();
}

int32_t Engine::last_id(const Entry& entry) {
  return entry.draft.empty() ? entry.sequence.ids().back() : entry.draft.back();
}

// Sequences that started together: the prompts padded on the right, then a token of each.
Engine::Logits Engine::run_batch() {
  const auto n = static_cast<int64_t>(live_.size());
  stats_.largest_batch = std::max(stats_.largest_batch, n);
  const bool is_prompt = cache_.is_empty();
  const Timer timer(is_prompt ? stats_.prefill_seconds : stats_.decode_seconds);
  if (!is_prompt) {
    std::vector<int64_t> last_ids;
    for (const auto& entry : live_) last_ids.push_back(entry.sequence.ids().back());
    const auto& output = steps_->run(last_ids, cache_);
    stats_.usage.add(output);
    return output.logits.unbind();
  }
  std::vector<int64_t> lengths;
  for (const auto& entry : live_) lengths.push_back(entry.sequence.n_prompt());
  const int64_t longest = *std::max_element(lengths.begin(), lengths.end());
  const auto tokens = at::full({n, longest}, 0, at::kLong);
  for (int64_t i = 0; i < n; ++i) {
    const auto& ids = live_[static_cast<size_t>(i)].sequence.ids();
    std::copy(ids.begin(), ids.end(), tokens[i].data_ptr<int64_t>());
  }
  std::vector<int64_t> last;
  for (const int64_t length : lengths) last.push_back(length - 1);
  const auto output = model_->forward(
      tokens.to(model_->device()),
      live_.front().plan,
      {.compute_dtype = options_.compute_dtype, .cache = &cache_, .logits_at = last});
  cache_.advance(lengths);
  return output.logits.unbind();
}

// One pass for each plan that some segment has.
Engine::Logits Engine::run_segments() {
  bool has_prompt = false;
  for (size_t i = 0; i < live_.size(); ++i) has_prompt = has_prompt || !generates(i);
  const Timer timer(has_prompt ? stats_.prefill_seconds : stats_.decode_seconds);
  if (options_.speculation) draft();
  auto segments = plan_segments();
  stats_.largest_batch = std::max(stats_.largest_batch, static_cast<int64_t>(segments.size()));
  Logits logits(live_.size());
  const auto plan_of = [&](const PassSegment& segment) -> const RoutingPlan& {
    return live_[static_cast<size_t>(segment.sequence)].plan;
  };
  while (!segments.empty()) {
    const auto& plan = plan_of(segments.front());
    const auto others =
        std::stable_partition(segments.begin(), segments.end(), [&](const PassSegment& segment) {
          return plan_of(segment) == plan;
        });
    run_pass({segments.begin(), others}, logits);
    segments.erase(segments.begin(), others);
  }
  return logits;
}

// Those that generate, then as much of the prompts as a step takes, oldest first.
std::vector<PassSegment> Engine::plan_segments() const {
  std::vector<PassSegment> segments;
  std::vector<PassSegment> prompts;
  int64_t n_allowed = options_.prompt_chunk;
  for (size_t i = 0; i < live_.size(); ++i) {
    const auto sequence = static_cast<int64_t>(i);
    const auto& entry = live_[i];
    const int64_t n_cached = cache_.length(sequence);
    const int64_t n_left = entry.sequence.n_ids() - n_cached;
    if (generates(i)) {
      segments.push_back({sequence, n_left + static_cast<int64_t>(entry.draft.size()), false});
      continue;
    }
    // A part that is not the last ends between blocks.
    const int64_t n = n_left <= n_allowed ? n_left : n_allowed / kPromptBlock * kPromptBlock;
    if (n > 0) prompts.push_back({sequence, n, true});
    n_allowed -= n;
  }
  segments.insert(segments.end(), prompts.begin(), prompts.end());
  return segments;
}

// One pass over segments of one plan, those of prompts last.
void Engine::run_pass(const std::vector<PassSegment>& segments, Logits& logits) {
  std::vector<int64_t> ids;
  std::vector<int64_t> logits_at;                  // places in the pass
  std::vector<std::pair<size_t, int64_t>> owners;  // live sequences and their number of logits
  int64_t n_generating = 0;
  for (const auto& segment : segments) {
    const auto index = static_cast<size_t>(segment.sequence);
    const auto& entry = live_[index];
    const int64_t begin = cache_.length(segment.sequence);
    const int64_t n_known = std::min(segment.n_tokens, entry.sequence.n_ids() - begin);
    const auto first = entry.sequence.ids().begin() + begin;
    ids.insert(ids.end(), first, first + n_known);
    ids.insert(ids.end(), entry.draft.begin(), entry.draft.end());
    if (!segment.is_prompt) n_generating += segment.n_tokens;
    if (begin + segment.n_tokens < entry.sequence.n_ids()) continue;
    const int64_t n_logits = segment.is_prompt ? 1 : segment.n_tokens;
    owners.emplace_back(index, n_logits);
    const auto end = static_cast<int64_t>(ids.size());
    for (int64_t place = end - n_logits; place < end; ++place) logits_at.push_back(place);
  }
  const auto& plan = live_[static_cast<size_t>(segments.front().sequence)].plan;
  const auto output = forward(segments, ids, logits_at, plan);
  if (n_generating > 0) {
    auto counted = at::zeros({1, output.features.size(1)}, at::kBool);
    counted.narrow(1, 0, n_generating).fill_(true);
    stats_.usage.add(output, counted);
  }
  int64_t row = 0;
  for (const auto& [index, n_logits] : owners) {
    logits[index] = output.logits.squeeze(1).narrow(0, row, n_logits);
    row += n_logits;
  }
}

ModelOutput Engine::forward(const std::vector<PassSegment>& segments,
                            const std::vector<int64_t>& ids,
                            const std::vector<int64_t>& logits_at,
                            const RoutingPlan& plan) {
  auto output = model_->forward(at::tensor(ids, at::kLong).unsqueeze(0),
                                plan,
                                {.compute_dtype = options_.compute_dtype,
                                 .cache = &cache_,
                                 .segments = segments,
                                 .logits_at = logits_at,
                                 .logits = !logits_at.empty()});
  cache_.advance_segments();
  return output;
}

// One drafted token after another of every sequence that generates. Leaves the cache as long as it
// was: what the draft wrote is overwritten by the pass that decides.
void Engine::draft() {
  std::vector<Sampler> samplers;
  std::vector<int64_t> n_cached;
  std::vector<PassSegment> segments;  // of the sequences that draft one more token
  for (size_t i = 0; i < live_.size(); ++i) {
    const auto sequence = static_cast<int64_t>(i);
    samplers.push_back(live_[i].sequence.sampler());
    n_cached.push_back(cache_.length(sequence));
    if (generates(i)) segments.push_back({sequence, 1, false});
  }
  for (int64_t n_drafted = 0; n_drafted < options_.speculation->n_tokens; ++n_drafted) {
    std::erase_if(segments, [&](const PassSegment& segment) {
      const auto& entry = live_[static_cast<size_t>(segment.sequence)];
      // The last token of all is never fed back, so nothing follows a draft of it.
      return entry.sequence.n_ids() + n_drafted >= entry.capacity ||
             tokenizer_.special_tokens().is_eos(last_id(entry));
    });
    if (segments.empty()) break;
    std::vector<int64_t> ids;
    std::vector<int64_t> logits_at;
    for (const auto& segment : segments) {
      logits_at.push_back(static_cast<int64_t>(ids.size()));
      ids.push_back(last_id(live_[static_cast<size_t>(segment.sequence)]));
    }
    const auto logits = forward(segments, ids, logits_at, options_.speculation->plan).logits;
    for (size_t row = 0; row < segments.size(); ++row) {
      const auto index = static_cast<size_t>(segments[row].sequence);
      auto& entry = live_[index];
      auto seen = entry.sequence.ids();
      seen.insert(seen.end(), entry.draft.begin(), entry.draft.end());
      entry.draft.push_back(draw(samplers[index], logits[static_cast<int64_t>(row)], seen));
      stats_.drafted_tokens += 1;
    }
  }
  for (size_t i = 0; i < live_.size(); ++i) cache_.rewind(static_cast<int64_t>(i), n_cached[i]);
}

}  // namespace dsmoe
