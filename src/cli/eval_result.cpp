#include "cli/eval_result.h"

#include <fmt/format.h>

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
          {"depends_on_batch", depends_on_batch(loaded.plan, config)},
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
