#include "eval/eval_batches.h"

#include <ATen/ops/empty.h>
#include <fmt/format.h>

#include <algorithm>

#include "common/error.h"

namespace dsmoe {
namespace {

void check(const EvalText& text, int64_t window, int64_t stride, const ModelConfig& config) {
  if (window < 1 || window > config.max_seq_len) {
    throw Error(fmt::format(
        "window = {} is outside [1, model.max_seq_len = {}]", window, config.max_seq_len));
  }
  if (stride < 1 || stride > window) {
    throw Error(fmt::format("stride = {} is outside [1, window = {}]", stride, window));
  }
  for (const auto& sequence : text.sequences) {
    for (const int32_t id : sequence) {
      if (id < 0 || id >= config.vocab_size) {
        throw Error(fmt::format(
            "evaluation text: token id {} is outside the vocabulary of {}", id, config.vocab_size));
      }
    }
  }
}

}  // namespace

EvalBatches::EvalBatches(const EvalText& text,
                         const ModelConfig& config,
                         const PerplexityOptions& options)
    : text_(text), batch_(static_cast<size_t>(options.batch)) {
  const int64_t window = options.window > 0 ? options.window : config.max_seq_len;
  const int64_t stride = options.stride > 0 ? options.stride : window;
  check(text, window, stride, config);
  cut(window, stride);
  if (options.n_parts > 1) take_part(options.part, options.n_parts);
}

// Every target exactly once, each with the longest context that its window gives.
void EvalBatches::cut(int64_t window, int64_t stride) {
  for (size_t sequence = 0; sequence < text_.sequences.size(); ++sequence) {
    const auto n_targets = static_cast<int64_t>(text_.sequences[sequence].size()) - 1;
    int64_t scored = 0;  // targets 1 .. scored are done
    for (int64_t begin = 0; scored < n_targets; begin += stride) {
      const int64_t end = std::min(begin + window, n_targets);
      windows_.push_back({sequence, begin, end - begin, end - scored});
      scored = end;
    }
  }
  // Windows of one length run together; padding would change what the batch computes.
  std::stable_sort(windows_.begin(), windows_.end(), [](const Window& a, const Window& b) {
    return a.length > b.length;
  });
}

void EvalBatches::take_part(int64_t part, int64_t n_parts) {
  std::vector<Window> taken;
  for (auto i = static_cast<size_t>(part); i < windows_.size(); i += static_cast<size_t>(n_parts)) {
    taken.push_back(windows_[i]);
  }
  windows_ = std::move(taken);
}

std::optional<EvalBatch> EvalBatches::next() {
  if (next_ == windows_.size()) return std::nullopt;
  const size_t first = next_;
  const int64_t length = windows_[first].length;
  while (next_ < windows_.size() && next_ < first + batch_ && windows_[next_].length == length) {
    ++next_;
  }
  const auto n_windows = static_cast<int64_t>(next_ - first);
  EvalBatch batch{.tokens = at::empty({n_windows, length}, at::kLong),
                  .targets = at::empty({n_windows, length}, at::kLong),
                  .counts = at::empty({n_windows, length}, at::kBool)};
  for (int64_t b = 0; b < n_windows; ++b) {
    const auto& window = windows_[first + static_cast<size_t>(b)];
    const auto* ids = text_.sequences[window.sequence].data() + window.begin;
    batch.groups.push_back(text_.groups.empty() ? 0 : text_.groups[window.sequence]);
    for (int64_t i = 0; i < length; ++i) {
      batch.tokens.data_ptr<int64_t>()[b * length + i] = ids[i];
      batch.targets.data_ptr<int64_t>()[b * length + i] = ids[i + 1];
      batch.counts.data_ptr<bool>()[b * length + i] =
          i >= length - window.n_scored && ids[i + 1] != text_.unscored_id;
    }
  }
  return batch;
}

}  // namespace dsmoe
