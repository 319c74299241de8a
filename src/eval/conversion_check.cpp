#include "eval/conversion_check.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randint.h>

#include <algorithm>

#include "eval/equivalence_check.h"

namespace dsmoe {
namespace {

// Random ids, [1, n_tokens]; the same for the same model.
at::Tensor comparison_tokens(const ModelConfig& config) {
  const int64_t n_tokens = std::min<int64_t>(config.max_seq_len, 16);
  return at::randint(config.vocab_size,
                     {1, n_tokens},
                     at::detail::createCPUGenerator(17),
                     at::TensorOptions(at::kLong));
}

double perplexity_under(Transformer& model, const RoutingPlan& plan, const EvalText& text) {
  PerplexityOptions options;
  options.plan = plan;
  return evaluate_perplexity(model, text, options).perplexity();
}

}  // namespace

ConversionComparison compare_conversion(const ModelSource& source,
                                        const ModelSource& converted,
                                        bool is_cut,
                                        const EvalText& text) {
  const at::NoGradGuard no_grad;
  ConversionComparison comparison;
  const auto tokens = comparison_tokens(source.config);
  at::Tensor expected;
  {
    auto original = instantiate(source);
    const auto plan = parse_routing_plan(source.config.training_policy);
    comparison.source_perplexity = perplexity_under(original, plan, text);
    expected = original->forward(tokens, plan).logits;
  }
  auto model = instantiate(converted);
  const auto plan = parse_routing_plan(converted.config.training_policy);
  model->force_gates(is_cut);
  const auto logits = model->forward(tokens, plan).logits;
  comparison.max_abs_logit_error = (logits - expected).abs().max().item<double>();
  if (!is_cut) return comparison;
  comparison.forced_gates_perplexity = perplexity_under(model, plan, text);
  model->force_gates(false);
  comparison.perplexity = perplexity_under(model, plan, text);
  return comparison;
}

EvalText random_eval_text(const ModelConfig& config) {
  const auto ids = random_check_tokens(config).ids.flatten().contiguous();
  EvalText text;
  const auto* first = ids.const_data_ptr<int64_t>();
  auto& sequence = text.sequences.emplace_back();
  for (int64_t i = 0; i < ids.numel(); ++i) sequence.push_back(static_cast<int32_t>(first[i]));
  return text;
}

Divergence compare_joined(const Transformer& model,
                          const RoutingPlan& plan,
                          const Transformer& written,
                          const EvalText& text) {
  auto partitioned = model;
  auto dense = written;
  const auto dense_plan = parse_routing_plan(written->config().training_policy);
  return compare_predictions({dense, dense_plan}, {partitioned, plan}, text, {});
}

}  // namespace dsmoe
