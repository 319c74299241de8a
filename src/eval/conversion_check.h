#pragma once

#include <optional>

#include "eval/divergence.h"
#include "model/io/model_source.h"

namespace dsmoe {

/// A converted model against its source.
struct ConversionComparison {
  double source_perplexity = 0;
  /// Largest difference of logits over random tokens; of a model that was cut into experts with
  /// every gate at 1.
  double max_abs_logit_error = 0;
  /// Perplexities of a model that was cut into experts: with every gate at 1, and under its own
  /// policy.
  std::optional<double> forced_gates_perplexity = {};
  std::optional<double> perplexity = {};
};

/// Compares a converted model with its source, with one of the two in memory at a time. Each runs
/// under its training policy in float32.
///
/// is_cut  the conversion cut the FFNs into experts
/// Throws Error as evaluate_perplexity does.
ConversionComparison compare_conversion(const ModelSource& source,
                                        const ModelSource& converted,
                                        bool is_cut,
                                        const EvalText& text);

/// Returns 256 random tokens or, of a shorter context, 4 contexts; the same for the same model.
EvalText random_eval_text(const ModelConfig& config);

/// Measures how far the dense model that a partitioned one was exported as is from it: every gate
/// is 1 there and no router remains.
///
/// model    the partitioned model
/// plan     the policy that it runs under
/// written  the exported model, read back
/// Returns the divergence of `written` from `model`, in float32. Throws Error as
/// compare_predictions does.
Divergence compare_joined(const Transformer& model,
                          const RoutingPlan& plan,
                          const Transformer& written,
                          const EvalText& text);

}  // namespace dsmoe
