#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/command_support.h"
#include "cli/options/eval_protocol.h"
#include "eval/multiple_choice.h"
#include "eval/perplexity.h"

namespace dsmoe {

/// Quality of a checkpoint under a plan with its protocol, what was active, speed: what `eval`
/// prints, and `curve` once a policy.
struct EvalReport {
  PerplexityResult quality;
  EvalProtocol protocol;  ///< without zeros
  bool bos = false;       ///< each document from BOS
  std::string policy;
  bool depends_on_batch = false;
  std::string execution;
  std::string dtype;
  std::string dtype_reason;  ///< see LoadedCheckpoint
  ActiveExperts active;
  double active_parameters = 0;
  ParameterCount parameters;
  int64_t batch = 0;

  double active_share() const {
    return active_parameters / static_cast<double>(parameters.non_embedding());
  }

  double tokens_per_second() const {
    return static_cast<double>(quality.tokens_scored) / quality.seconds;
  }
};
EvalReport make_eval_report(const PerplexityResult& quality,
                            const LoadedCheckpoint& loaded,
                            const RoutingPlan& plan,
                            const ModelOptions& options,
                            const EvalProtocol& protocol,
                            int64_t batch);
nlohmann::ordered_json to_json(const EvalReport& report);

/// One of the texts of an evaluation.
struct TextQuality {
  std::string data;  ///< path
  PerplexityResult quality;
  ActiveExperts active;
  double active_parameters = 0;
};
/// data  paths of the texts, in their order
std::vector<TextQuality> qualities_of_texts(const PerplexityResult& result,
                                            const std::vector<std::string>& data,
                                            const ModelConfig& config);
nlohmann::ordered_json to_json(const TextQuality& text);
/// A row for each text and one for the total.
void print_texts(const std::vector<TextQuality>& texts, const EvalReport& total);

/// `accuracy` with its interval, `accuracy_normalised` (per byte), `items` that were scored,
/// `failed` with their `errors`, `per_group`. A share of no item is null.
nlohmann::ordered_json choices_to_json(const ChoiceResult& result, size_t n_asked);

/// A line that says on what the numbers of threshold_top_k depend.
void print_batch_dependence(int64_t batch);

}  // namespace dsmoe
