#include "cli/eval_result.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/printable.h"
#include "common/standard_output.h"
#include "eval/expert_use.h"
#include "model/moe/batch_dependence.h"
#include "model/parameter_count.h"

namespace dsmoe {
namespace {

// Of no item there is no share.
nlohmann::ordered_json or_null(const Accuracy& accuracy, double share) {
  return accuracy.n_items > 0 ? nlohmann::ordered_json(share) : nlohmann::ordered_json(nullptr);
}

nlohmann::ordered_json accuracy_to_json(const Accuracy& accuracy) {
  return {{"accuracy", or_null(accuracy, accuracy.share())},
          {"low", or_null(accuracy, accuracy.low())},
          {"high", or_null(accuracy, accuracy.high())},
          {"items", accuracy.n_items}};
}

}  // namespace

EvalReport make_eval_report(const PerplexityResult& quality,
                            const LoadedCheckpoint& loaded,
                            const RoutingPlan& plan,
                            const ModelOptions& options,
                            const EvalProtocol& protocol,
                            int64_t batch) {
  const auto& config = loaded.model->config();
  const auto active = quality.usage.active_experts();
  const int64_t window = protocol.window > 0 ? protocol.window : config.max_seq_len;
  const int64_t stride = protocol.stride > 0 ? protocol.stride : window;
  return {.quality = quality,
          .protocol = {.window = window, .stride = stride, .documents = protocol.documents},
          .bos = loaded.tokenizer->special_tokens().adds_bos,
          .policy = plan.to_string(),
          .depends_on_batch = depends_on_batch(plan, config),
          .execution = options.execution,
          .dtype = loaded.dtype,
          .dtype_reason = loaded.dtype_reason,
          .active = active,
          .active_parameters = active_parameters(config, active),
          .parameters = count_parameters(config),
          .batch = batch};
}

nlohmann::ordered_json to_json(const EvalReport& report) {
  const auto& quality = report.quality;
  return {{"perplexity", quality.perplexity()},
          {"nats_per_token", quality.nats_per_token()},
          {"bits_per_byte", quality.bits_per_byte()},
          {"nats_total", quality.nats_total},
          {"tokens_scored", quality.tokens_scored},
          {"bytes", quality.n_bytes},
          {"window", report.protocol.window},
          {"stride", report.protocol.stride},
          {"bos", report.bos},
          {"documents", report.protocol.documents},
          {"policy", report.policy},
          {"depends_on_batch", report.depends_on_batch},
          {"execution", report.execution},
          {"dtype", report.dtype},
          {"active_experts", active_experts_json(report.active)},
          {"expert_use", expert_use_to_json(quality.usage)},
          {"active_parameters", report.active_parameters},
          {"non_embedding_parameters", report.parameters.non_embedding()},
          {"total_parameters", report.parameters.total()},
          {"seconds", quality.seconds},
          {"tokens_per_second", report.tokens_per_second()},
          {"complete", quality.complete},
          {"batch", report.batch}};
}

std::vector<TextQuality> qualities_of_texts(const PerplexityResult& result,
                                            const std::vector<std::string>& data,
                                            const ModelConfig& config) {
  std::vector<TextQuality> texts;
  for (size_t i = 0; i < data.size(); ++i) {
    const auto& quality = result.groups.empty() ? result : result.groups.at(i);
    const auto active = quality.usage.active_experts();
    // Of a text that a stop left out nothing is known.
    const bool is_scored = quality.tokens_scored > 0;
    texts.push_back({.data = data[i],
                     .quality = quality,
                     .active = active,
                     .active_parameters = is_scored ? active_parameters(config, active) : 0});
  }
  return texts;
}

nlohmann::ordered_json to_json(const TextQuality& text) {
  const auto& quality = text.quality;
  return {{"data", text.data},
          {"perplexity", quality.perplexity()},
          {"nats_per_token", quality.nats_per_token()},
          {"bits_per_byte", quality.bits_per_byte()},
          {"nats_total", quality.nats_total},
          {"tokens_scored", quality.tokens_scored},
          {"bytes", quality.n_bytes},
          {"active_experts", active_experts_json(text.active)},
          {"active_parameters", text.active_parameters}};
}

void print_texts(const std::vector<TextQuality>& texts, const EvalReport& total) {
  size_t width = 5;
  for (const auto& text : texts) width = std::max(width, printable_line(text.data).size());
  const auto row =
      [&](const std::string& name, const PerplexityResult& quality, double parameters) {
        print_out("{:<{}} {:>10} {:>11.4f} {:>11.4f} {:>10.4f} {:>7.1f}%\n",
                  printable_line(name),
                  width,
                  quality.tokens_scored,
                  quality.perplexity(),
                  quality.nats_per_token(),
                  quality.bits_per_byte(),
                  100 * parameters / static_cast<double>(total.parameters.non_embedding()));
      };
  print_out("{:<{}} {:>10} {:>11} {:>11} {:>10} {:>8}\n",
            "text",
            width,
            "tokens",
            "perplexity",
            "nats/token",
            "bits/byte",
            "active");
  for (const auto& text : texts) row(text.data, text.quality, text.active_parameters);
  row("total", total.quality, total.active_parameters);
}

nlohmann::ordered_json choices_to_json(const ChoiceResult& result, size_t n_asked) {
  auto groups = nlohmann::ordered_json::object();
  for (const auto& [name, accuracy] : result.by_group) groups[name] = accuracy_to_json(accuracy);
  const auto& whole = result.accuracy;
  const auto& per_byte = result.accuracy_per_byte;
  const auto errors = result.errors();
  return {{"accuracy", or_null(whole, whole.share())},
          {"accuracy_low", or_null(whole, whole.low())},
          {"accuracy_high", or_null(whole, whole.high())},
          {"accuracy_normalised", or_null(per_byte, per_byte.share())},
          {"accuracy_normalised_low", or_null(per_byte, per_byte.low())},
          {"accuracy_normalised_high", or_null(per_byte, per_byte.high())},
          {"items", whole.n_items},
          {"failed", errors.size()},
          {"errors", errors},
          {"per_group", groups},
          {"complete", result.items.size() == n_asked}};
}

void print_batch_dependence(int64_t batch) {
  print_out("threshold_top_k: these numbers depend on --batch {}\n", batch);
}

}  // namespace dsmoe
