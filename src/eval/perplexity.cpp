#include "eval/perplexity.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>

#include "common/error.h"
#include "eval/evaluation_mode.h"
#include "model/linear.h"

namespace dsmoe {
namespace {

// One forward pass over part of a sequence: inputs [begin, begin + length), of whose targets the
// last n_scored count.
struct Window {
  const std::vector<int32_t>* sequence;
  int64_t begin;
  int64_t length;
  int64_t n_scored;
};

// Every target exactly once, each with the longest context that its window gives.
std::vector<Window> cut_windows(const EvalText& text, int64_t window, int64_t stride) {
  std::vector<Window> windows;
  for (const auto& sequence : text.sequences) {
    const auto n_targets = static_cast<int64_t>(sequence.size()) - 1;
    int64_t scored = 0;  // targets 1 .. scored are done
    for (int64_t begin = 0; scored < n_targets; begin += stride) {
      const int64_t end = std::min(begin + window, n_targets);
      windows.push_back({&sequence, begin, end - begin, end - scored});
      scored = end;
    }
  }
  // Windows of one length run together; padding would change what the batch computes.
  std::stable_sort(windows.begin(), windows.end(), [](const Window& a, const Window& b) {
    return a.length > b.length;
  });
  return windows;
}

std::vector<Window> take_part(std::vector<Window> windows, int64_t part, int64_t n_parts) {
  if (n_parts == 1) return windows;
  std::vector<Window> taken;
  for (auto i = static_cast<size_t>(part); i < windows.size(); i += static_cast<size_t>(n_parts)) {
    taken.push_back(windows[i]);
  }
  return taken;
}

// Adds the windows [first, last), all of one length.
void score(TransformerImpl& model,
           const EvalText& text,
           const std::vector<Window>& windows,
           size_t first,
           size_t last,
           const PerplexityOptions& options,
           PerplexityResult& result) {
  const int64_t length = windows[first].length;
  const auto batch = static_cast<int64_t>(last - first);
  auto tokens = at::empty({batch, length}, at::kLong);
  auto targets = at::empty({batch, length}, at::kLong);
  auto counts = at::empty({batch, length}, at::kBool);  // targets that are scored
  for (int64_t b = 0; b < batch; ++b) {
    const auto& window = windows[first + static_cast<size_t>(b)];
    const auto* ids = window.sequence->data() + window.begin;
    for (int64_t i = 0; i < length; ++i) {
      tokens.data_ptr<int64_t>()[b * length + i] = ids[i];
      targets.data_ptr<int64_t>()[b * length + i] = ids[i + 1];
      counts.data_ptr<bool>()[b * length + i] =
          i >= length - window.n_scored && ids[i + 1] != text.unscored_id;
    }
  }
  const auto output = model.forward(tokens, options.plan, {.compute_dtype = options.compute_dtype});
  const auto log_probs = at::log_softmax(at_least_float32(output.logits), -1);
  const auto nats = log_probs.gather(-1, targets.unsqueeze(-1)).squeeze(-1).to(at::kDouble).neg();
  result.nats_total += nats.masked_select(counts).sum().item<double>();
  result.tokens_scored += counts.sum().item<int64_t>();
  result.usage.add(output, counts);
}

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

double PerplexityResult::nats_per_token() const {
  return nats_total / static_cast<double>(tokens_scored);
}
double PerplexityResult::perplexity() const { return std::exp(nats_per_token()); }
double PerplexityResult::bits_per_byte() const {
  return nats_total / std::numbers::ln2 / static_cast<double>(n_bytes);
}

PerplexityResult evaluate_perplexity(Transformer& model,
                                     const EvalText& text,
                                     const PerplexityOptions& options) {
  const at::NoGradGuard no_grad;
  const auto& config = model->config();
  const int64_t window = options.window > 0 ? options.window : config.max_seq_len;
  const int64_t stride = options.stride > 0 ? options.stride : window;
  check(text, window, stride, config);
  const EvaluationMode mode(*model);
  const auto start = std::chrono::steady_clock::now();
  const auto windows = take_part(cut_windows(text, window, stride), options.part, options.n_parts);
  PerplexityResult result;
  result.n_bytes = text.n_bytes;
  for (size_t first = 0; first < windows.size();) {
    if (options.stop && options.stop()) {
      result.complete = false;
      break;
    }
    size_t last = first;
    while (last < windows.size() && last < first + static_cast<size_t>(options.batch) &&
           windows[last].length == windows[first].length) {
      ++last;
    }
    score(*model, text, windows, first, last, options, result);
    first = last;
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (result.tokens_scored == 0 && result.complete && options.n_parts == 1) {
    throw Error("evaluation text: expected at least one token after the first, got none");
  }
  return result;
}

}  // namespace dsmoe
