#pragma once

#include <nlohmann/json.hpp>

#include "cli/command_support.h"
#include "eval/multiple_choice.h"
#include "eval/perplexity.h"

namespace dsmoe {

/// How text was cut for the model, beside what PerplexityOptions say.
struct EvalProtocol {
  int64_t window = 0;  ///< 0: the model's context
  int64_t stride = 0;  ///< 0: window
  bool documents = false;
};

/// The object that `eval` prints and of which `curve` prints one a policy: quality with its
/// protocol, what was active, speed.
nlohmann::ordered_json perplexity_to_json(const PerplexityResult& result,
                                          const LoadedCheckpoint& loaded,
                                          const ModelOptions& options,
                                          const EvalProtocol& protocol);

/// `accuracy` with its interval, `accuracy_normalised` (per byte), `items` that were scored,
/// `failed` with their `errors`, `per_group`. A share of no item is null.
nlohmann::ordered_json choices_to_json(const ChoiceResult& result, size_t n_asked);

/// A line that says on what the numbers of threshold_top_k depend.
void print_batch_dependence(int64_t batch);

}  // namespace dsmoe
