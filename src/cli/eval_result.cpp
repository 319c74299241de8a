#include "cli/eval_result.h"

#include "eval/expert_use.h"
#include "model/parameter_count.h"

namespace dsmoe {
namespace {

nlohmann::ordered_json accuracy_to_json(const Accuracy& accuracy) {
  return {{"accuracy", accuracy.share()},
          {"low", accuracy.low()},
          {"high", accuracy.high()},
          {"items", accuracy.n_items}};
}

}  // namespace

nlohmann::ordered_json perplexity_to_json(const PerplexityResult& result,
                                          const LoadedCheckpoint& loaded,
                                          const ModelOptions& options,
                                          const EvalProtocol& protocol) {
  const auto& config = loaded.model->config();
  const auto active = result.usage.active_experts();
  const auto count = count_parameters(config);
  const int64_t window = protocol.window > 0 ? protocol.window : config.max_seq_len;
  return {{"perplexity", result.perplexity()},
          {"nats_per_token", result.nats_per_token()},
          {"bits_per_byte", result.bits_per_byte()},
          {"nats_total", result.nats_total},
          {"tokens_scored", result.tokens_scored},
          {"bytes", result.n_bytes},
          {"window", window},
          {"stride", protocol.stride > 0 ? protocol.stride : window},
          {"bos", loaded.tokenizer->special_tokens().adds_bos},
          {"documents", protocol.documents},
          {"policy", loaded.plan.to_string()},
          {"execution", options.execution},
          {"dtype", options.dtype},
          {"active_experts", active_experts_json(active)},
          {"expert_use", expert_use_to_json(result.usage)},
          {"active_parameters", active_parameters(config, active)},
          {"non_embedding_parameters", count.non_embedding()},
          {"total_parameters", count.total()},
          {"seconds", result.seconds},
          {"tokens_per_second", static_cast<double>(result.tokens_scored) / result.seconds},
          {"complete", result.complete}};
}

nlohmann::ordered_json choices_to_json(const ChoiceResult& result, size_t n_asked) {
  auto groups = nlohmann::ordered_json::object();
  for (const auto& [name, accuracy] : result.by_group) groups[name] = accuracy_to_json(accuracy);
  return {{"accuracy", result.accuracy.share()},
          {"accuracy_low", result.accuracy.low()},
          {"accuracy_high", result.accuracy.high()},
          {"accuracy_normalised", result.accuracy_per_byte.share()},
          {"accuracy_normalised_low", result.accuracy_per_byte.low()},
          {"accuracy_normalised_high", result.accuracy_per_byte.high()},
          {"items", result.accuracy.n_items},
          {"per_group", groups},
          {"complete", result.items.size() == n_asked}};
}

}  // namespace dsmoe
