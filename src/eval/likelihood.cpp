#include "eval/likelihood.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>
#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <optional>

#include "common/error.h"
#include "eval/evaluation_mode.h"
#include "model/linear.h"

namespace dsmoe {
namespace {

bool is_blank_text(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

// What the model reads of one: at most max_seq_len tokens, the last of which is only a target.
std::vector<int32_t> read_part(const Continuation& continuation, int64_t max_seq_len) {
  const auto size = static_cast<int64_t>(continuation.tokens.size());
  const int64_t first = std::max<int64_t>(size - 1 - max_seq_len, 0);
  return {continuation.tokens.begin() + first, continuation.tokens.end()};
}

// Sequences of one length: [batch, length] to their likelihoods.
std::vector<Likelihood> score(TransformerImpl& model,
                              const std::vector<std::vector<int32_t>>& sequences,
                              const std::vector<int64_t>& n_scored,
                              const LikelihoodOptions& options) {
  const auto batch = static_cast<int64_t>(sequences.size());
  const auto length = static_cast<int64_t>(sequences.front().size()) - 1;
  auto tokens = at::empty({batch, length}, at::kLong);
  auto targets = at::empty({batch, length, 1}, at::kLong);
  for (int64_t b = 0; b < batch; ++b) {
    const auto& ids = sequences[static_cast<size_t>(b)];
    std::copy(ids.begin(), ids.end() - 1, tokens.data_ptr<int64_t>() + b * length);
    std::copy(ids.begin() + 1, ids.end(), targets.data_ptr<int64_t>() + b * length);
  }
  const auto device = model.device();
  targets = targets.to(device);
  const auto output =
      model.forward(tokens.to(device), options.plan, {.compute_dtype = options.compute_dtype});
  const auto log_probs = at::log_softmax(at_least_float32(output.logits), -1);
  const auto chosen = log_probs.gather(-1, targets).squeeze(-1).to(at::kDouble).contiguous().cpu();
  const auto best = log_probs.argmax(-1, true).eq(targets).squeeze(-1).contiguous().cpu();
  std::vector<Likelihood> likelihoods;
  for (int64_t b = 0; b < batch; ++b) {
    auto& likelihood = likelihoods.emplace_back();
    for (int64_t i = length - n_scored[static_cast<size_t>(b)]; i < length; ++i) {
      likelihood.log_likelihood += chosen.const_data_ptr<double>()[b * length + i];
      likelihood.is_greedy = likelihood.is_greedy && best.const_data_ptr<bool>()[b * length + i];
    }
  }
  return likelihoods;
}

}  // namespace

Continuation encode_continuation(const Tokenizer& tokenizer,
                                 std::string_view context,
                                 std::string_view text) {
  size_t end = context.size();
  while (end > 0 && is_blank_text(context[end - 1])) --end;
  const auto whole = std::string(context) + std::string(text);
  auto n_context = static_cast<int64_t>(tokenizer.encode_with_bos(context.substr(0, end)).size());
  Continuation continuation{.tokens = tokenizer.encode_with_bos(whole)};
  // The first token needs one before it: BOS, also where the tokenizer adds none to a text. Without
  // a BOS it cannot be scored.
  if (const auto bos = tokenizer.bos_id(); n_context == 0 && bos) {
    if (continuation.tokens.empty() || continuation.tokens.front() != *bos) {
      continuation.tokens.insert(continuation.tokens.begin(), *bos);
    }
  }
  n_context = std::max<int64_t>(n_context, 1);
  continuation.n_scored = static_cast<int64_t>(continuation.tokens.size()) - n_context;
  if (text.empty() || continuation.n_scored < 1) {
    throw Error(fmt::format("continuation: expected a text of one token or more, got '{}'", text));
  }
  return continuation;
}

void check_continuation(const Continuation& continuation, const ModelConfig& config) {
  const auto n_tokens = static_cast<int64_t>(continuation.tokens.size());
  const int64_t n_scored = continuation.n_scored;
  if (n_scored < 1 || n_scored >= n_tokens || n_scored > config.max_seq_len) {
    throw Error(fmt::format(
        "continuation: expected 1 to {} tokens to score, after one that is not, got {} of {}",
        config.max_seq_len,
        n_scored,
        n_tokens));
  }
  for (const auto id : continuation.tokens) {
    if (id >= 0 && id < config.vocab_size) continue;
    throw Error(fmt::format(
        "continuation: token id {} is outside the vocabulary of {}", id, config.vocab_size));
  }
}

std::vector<Likelihood> score_continuations(Transformer& model,
                                            const std::vector<Continuation>& continuations,
                                            const LikelihoodOptions& options) {
  const at::NoGradGuard no_grad;
  const auto& config = model->config();
  for (const auto& continuation : continuations) check_continuation(continuation, config);
  const EvaluationMode mode(*model);
  std::vector<std::vector<int32_t>> sequences;
  for (const auto& it : continuations) sequences.push_back(read_part(it, config.max_seq_len));
  // Those of one length run together; padding would change what the batch computes.
  std::vector<size_t> order(sequences.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return sequences[a].size() > sequences[b].size();
  });
  std::vector<std::optional<Likelihood>> scored(sequences.size());
  for (size_t first = 0; first < order.size();) {
    if (options.stop && options.stop()) break;
    std::vector<std::vector<int32_t>> together;
    std::vector<int64_t> n_scored;
    size_t last = first;
    for (; last < order.size() && static_cast<int64_t>(last - first) < options.batch &&
           sequences[order[last]].size() == sequences[order[first]].size();
         ++last) {
      together.push_back(sequences[order[last]]);
      n_scored.push_back(continuations[order[last]].n_scored);
    }
    const auto likelihoods = score(*model, together, n_scored, options);
    for (size_t i = first; i < last; ++i) scored[order[i]] = likelihoods[i - first];
    first = last;
    if (options.on_progress) {
      options.on_progress(static_cast<int64_t>(first), static_cast<int64_t>(order.size()));
    }
  }
  std::vector<Likelihood> result;
  for (const auto& it : scored) {
    if (!it) break;
    result.push_back(*it);
  }
  return result;
}

}  // namespace dsmoe
