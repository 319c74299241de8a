#include "eval/perplexity.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>

#include "common/error.h"
#include "eval/eval_batches.h"
#include "eval/evaluation_mode.h"
#include "model/linear.h"

namespace dsmoe {

double PerplexityResult::nats_per_token() const {
  return nats_total / static_cast<double>(tokens_scored);
}
double PerplexityResult::perplexity() const { return std::exp(nats_per_token()); }
double PerplexityResult::bits_per_byte() const {
  return nats_total / std::numbers::ln2 / static_cast<double>(n_bytes);
}

PerplexityResult PerplexityResult::of(const EvalText& text) {
  PerplexityResult result;
  result.n_bytes = text.n_bytes;
  for (const int64_t n_bytes : text.group_bytes) result.groups.emplace_back().n_bytes = n_bytes;
  return result;
}

// nats, counts [batch, length]
void PerplexityResult::add(const at::Tensor& nats,
                           const at::Tensor& counts,
                           const ModelOutput& output) {
  nats_total += nats.masked_select(counts.to(nats.device())).sum().item<double>();
  tokens_scored += counts.sum().item<int64_t>();
  usage.add(output, counts);
}

void PerplexityResult::add(const ModelOutput& output, const EvalBatch& batch) {
  const auto log_probs = at::log_softmax(at_least_float32(output.logits), -1);
  const auto nats = log_probs.gather(-1, batch.targets.to(log_probs.device()).unsqueeze(-1))
                        .squeeze(-1)
                        .to(at::kDouble)
                        .neg();
  add(nats, batch.counts, output);
  for (size_t group = 0; group < groups.size(); ++group) {
    const auto is_of_group = [group](size_t its_group) { return its_group == group; };
    if (std::none_of(batch.groups.begin(), batch.groups.end(), is_of_group)) continue;
    auto counts = batch.counts.clone();
    for (size_t row = 0; row < batch.groups.size(); ++row) {
      if (!is_of_group(batch.groups[row])) counts[static_cast<int64_t>(row)].fill_(false);
    }
    groups[group].add(nats, counts, output);
  }
}

PerplexityResult evaluate_perplexity(Transformer& model,
                                     const EvalText& text,
                                     const PerplexityOptions& options) {
  const at::NoGradGuard no_grad;
  EvalBatches batches(text, model->config(), options);
  const EvaluationMode mode(*model);
  const auto start = std::chrono::steady_clock::now();
  auto result = PerplexityResult::of(text);
  while (const auto batch = batches.next()) {
    if (options.stop && options.stop()) {
      result.complete = false;
      break;
    }
    const auto output = model->forward(
        batch->tokens.to(model->device()), options.plan, {.compute_dtype = options.compute_dtype});
    result.add(output, *batch);
    if (options.on_pass) options.on_pass(output, *batch);
    if (options.on_progress) options.on_progress(batches.n_done(), batches.n_windows());
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  if (result.tokens_scored == 0 && result.complete && options.n_parts == 1) {
    throw Error("evaluation text: expected at least one token after the first, got none");
  }
  return result;
}

}  // namespace dsmoe
