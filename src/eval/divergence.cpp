#include "eval/divergence.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/log_softmax.h>
#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "common/error.h"
#include "eval/eval_batches.h"
#include "eval/evaluation_mode.h"

namespace dsmoe {
namespace {

// Adds the batch to `sums`; returns its logits.
at::Tensor run(const ModelUnderPlan& under, const EvalBatch& batch, PerplexityResult& sums) {
  const auto start = std::chrono::steady_clock::now();
  const auto output = under.model->forward(
      batch.tokens.to(under.model->device()), under.plan, {.compute_dtype = under.compute_dtype});
  sums.add(output, batch);
  sums.seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return output.logits;
}

void add(Divergence& sums,
         const at::Tensor& logits,
         const at::Tensor& reference_logits,
         const at::Tensor& counts) {
  const auto log_q = at::log_softmax(logits.to(at::kDouble), -1);
  const auto log_p = at::log_softmax(reference_logits.to(at::kDouble), -1);
  const auto kl = (log_p.exp() * (log_p - log_q)).sum(-1).masked_select(counts);
  if (kl.numel() == 0) return;
  sums.kl_total += kl.sum().item<double>();
  sums.kl_max = std::max(sums.kl_max, kl.max().item<double>());
  const auto is_same = logits.argmax(-1).eq(reference_logits.argmax(-1));
  sums.n_same_top += is_same.logical_and(counts).sum().item<int64_t>();
}

}  // namespace

double Divergence::kl_per_token() const {
  return kl_total / static_cast<double>(model.tokens_scored);
}

double Divergence::top1_agreement() const {
  return static_cast<double>(n_same_top) / static_cast<double>(model.tokens_scored);
}

Divergence compare_predictions(const ModelUnderPlan& model,
                               const ModelUnderPlan& reference,
                               const EvalText& text,
                               const PerplexityOptions& options) {
  const int64_t vocab_size = model.model->config().vocab_size;
  const int64_t reference_size = reference.model->config().vocab_size;
  if (vocab_size != reference_size) {
    throw Error(fmt::format(
        "--against: expected a vocabulary of {}, got one of {}", vocab_size, reference_size));
  }
  const at::NoGradGuard no_grad;
  // The window must fit the shorter context.
  const bool is_shorter = reference.model->config().max_seq_len < model.model->config().max_seq_len;
  EvalBatches batches(text, (is_shorter ? reference : model).model->config(), options);
  const EvaluationMode mode(*model.model);
  const EvaluationMode reference_mode(*reference.model);
  Divergence sums;
  sums.model = PerplexityResult::of(text);
  sums.reference = PerplexityResult::of(text);
  while (const auto batch = batches.next()) {
    if (options.stop && options.stop()) {
      sums.model.complete = sums.reference.complete = false;
      break;
    }
    const auto logits = run(model, *batch, sums.model);
    add(sums, logits, run(reference, *batch, sums.reference), batch->counts);
    if (options.on_progress) options.on_progress(batches.n_done(), batches.n_windows());
  }
  if (sums.model.tokens_scored == 0 && sums.model.complete && options.n_parts == 1) {
    throw Error("evaluation text: expected at least one token after the first, got none");
  }
  return sums;
}

}  // namespace dsmoe
