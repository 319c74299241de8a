#include <fmt/format.h>

#include "cli/command_support.h"
#include "cli/options/check.h"
#include "cli/run_functions.h"
#include "common/standard_output.h"
#include "data/tokenizer_files.h"
#include "eval/equivalence_check.h"
#include "eval/eval_text.h"

namespace dsmoe {
namespace {

RoutingPlan plan_of(const CheckCommand& options, const ModelConfig& config) {
  if (options.policy.empty()) return default_check_plan(config);
  auto plan = parse_routing_plan(options.policy);
  validate_plan(plan, config);
  return plan;
}

// [n_sequences, seq] of the text's beginning, or drawn.
CheckTokens tokens_of(const CheckCommand& options,
                      const Tokenizer& tokenizer,
                      const ModelConfig& config) {
  if (options.data.empty()) return random_check_tokens(config);
  const auto text = read_eval_text(options.data, tokenizer, /*documents=*/false, 0, options.format);
  return check_tokens(text, config, options.data);
}

nlohmann::ordered_json health_to_json(const ExpertHealth& health) {
  auto duplicates = nlohmann::ordered_json::array();
  for (const auto& pair : health.duplicates) {
    duplicates.push_back({{"experts", {pair.first, pair.second}}, {"cosine", pair.cosine}});
  }
  const auto dead = health.dead ? nlohmann::ordered_json(*health.dead) : nullptr;
  return {{"dead", dead}, {"duplicates", duplicates}};
}

nlohmann::ordered_json to_json(const CheckReport& report, const RoutingPlan& plan) {
  auto layers = nlohmann::ordered_json::array();
  for (const auto& layer : report.layers) {
    layers.push_back({{"max_abs_error", layer.max_abs_error},
                      {"moe", health_to_json(layer.moe)},
                      {"moa", health_to_json(layer.moa)}});
  }
  return {{"pass", report.passes()},
          {"policy", plan.to_string()},
          {"tokens", report.on_random_tokens ? "random" : "text"},
          {"max_abs_error", report.max_abs_error},
          {"max_abs_logit", report.max_abs_logit},
          {"tolerance", report.tolerance},
          {"bfloat16_agreement", report.bfloat16_agreement},
          {"non_finite", report.non_finite},
          {"layers", layers}};
}

void print_health(size_t layer, const char* kind, const ExpertHealth& health) {
  if (health.dead && !health.dead->empty()) {
    print_out("layer {}: {} experts without load: {}\n", layer, kind, fmt::join(*health.dead, " "));
  }
  for (const auto& pair : health.duplicates) {
    print_out("layer {}: {} experts {} and {} are alike (cosine {:.4f})\n",
              layer,
              kind,
              pair.first,
              pair.second,
              pair.cosine);
  }
}

void print_text(const CheckReport& report, const RoutingPlan& plan) {
  for (const auto& name : report.non_finite) print_out("not finite: {}\n", name);
  if (report.on_random_tokens) {
    print_out(
        "random tokens: they compare executions, but say nothing of dead experts; --data TEXT\n");
  }
  print_out(
      "policy {}: dense and sparse logits differ by {:.2e} at most, of {:.2f}; bound {:.2e}\n",
      plan.to_string(),
      report.max_abs_error,
      report.max_abs_logit,
      report.tolerance);
  for (size_t i = 0; i < report.layers.size(); ++i) {
    print_out("layer {}: {:.2e}\n", i, report.layers[i].max_abs_error);
    print_health(i, "moe", report.layers[i].moe);
    print_health(i, "moa", report.layers[i].moa);
  }
  print_out("bfloat16 chooses the experts of float32 for {:.2f} % of tokens and layers\n{}\n",
            100 * report.bfloat16_agreement,
            report.passes() ? "passed" : "FAILED");
}

}  // namespace

int run_check(const CheckCommand& options) {
  set_threads(options.threads);
  auto& io = posix_io();
  const auto checkpoint = find_checkpoint(io, options.checkpoint);
  const auto config = read_model_config(io, checkpoint.directory);
  const auto plan = plan_of(options, config);
  const auto tokenizer = load_tokenizer(io, checkpoint.directory);
  const auto tokens = tokens_of(options, *tokenizer, config);
  auto model = load_model(io, checkpoint);
  const auto report = check_equivalence(model, tokens, plan);
  if (options.json) {
    print_json(to_json(report, plan));
  } else {
    print_text(report, plan);
  }
  return report.passes() ? 0 : 1;
}

}  // namespace dsmoe
