#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <memory>
#include <optional>

#include "cli/command_support.h"
#include "cli/commands.h"
#include "common/error.h"
#include "common/stop_signal.h"
#include "eval/expert_use.h"
#include "eval/perplexity.h"
#include "model/parameter_count.h"

namespace dsmoe {
namespace {

struct Options {
  ModelOptions model;
  std::string data;
  int64_t window = 0;
  int64_t stride = 0;
  int64_t batch = 8;
  std::string words;
  bool documents = false;
  bool json = false;
};

std::optional<int64_t> count_for(const std::string& words, const EvalText& text) {
  if (words.empty()) return std::nullopt;
  if (words == "auto") {
    if (text.n_words == 0) {
      throw Error("--words: auto needs a text file, as shards hold no words; give their number");
    }
    return text.n_words;
  }
  int64_t n_words = 0;
  const auto* end = words.data() + words.size();
  const auto [stop, error] = std::from_chars(words.data(), end, n_words);
  if (error != std::errc{} || stop != end || n_words < 1) {
    throw Error(fmt::format("--words: expected auto or a number above 0, got '{}'", words));
  }
  return n_words;
}

nlohmann::ordered_json to_json(const Options& options,
                               const LoadedCheckpoint& loaded,
                               const PerplexityResult& result,
                               std::optional<int64_t> n_words) {
  const auto active = result.usage.active_experts();
  const auto count = count_parameters(loaded.model->config());
  const int64_t window = options.window > 0 ? options.window : loaded.model->config().max_seq_len;
  nlohmann::ordered_json json = {
      {"perplexity", result.perplexity()},
      {"nats_per_token", result.nats_per_token()},
      {"bits_per_byte", result.bits_per_byte()},
      {"nats_total", result.nats_total},
      {"tokens_scored", result.tokens_scored},
      {"bytes", result.n_bytes},
      {"window", window},
      {"stride", options.stride > 0 ? options.stride : window},
      {"bos", loaded.tokenizer->bos_id().has_value()},
      {"documents", options.documents},
      {"policy", loaded.plan.to_string()},
      {"execution", options.model.execution},
      {"dtype", options.model.dtype},
      {"active_experts", active_experts_json(active)},
      {"expert_use", expert_use_to_json(result.usage)},
      {"active_parameters", active_parameters(loaded.model->config(), active)},
      {"non_embedding_parameters", count.non_embedding()},
      {"total_parameters", count.total()},
      {"seconds", result.seconds},
      {"tokens_per_second", static_cast<double>(result.tokens_scored) / result.seconds},
      {"complete", result.complete}};
  if (n_words) {
    json["words"] = *n_words;
    json["word_perplexity"] = std::exp(result.nats_total / static_cast<double>(*n_words));
  }
  return json;
}

void print_text(const nlohmann::ordered_json& json) {
  fmt::print("policy {} ({} execution, {}), window {}, stride {}, {}\n",
             json["policy"].get<std::string>(),
             json["execution"].get<std::string>(),
             json["dtype"].get<std::string>(),
             json["window"].get<int64_t>(),
             json["stride"].get<int64_t>(),
             json["bos"].get<bool>() ? "each document from BOS" : "no BOS");
  fmt::print("perplexity {:.4f} | {:.4f} nats per token over {} tokens | {:.4f} bits per byte\n",
             json["perplexity"].get<double>(),
             json["nats_per_token"].get<double>(),
             json["tokens_scored"].get<int64_t>(),
             json["bits_per_byte"].get<double>());
  if (json.contains("word_perplexity")) {
    fmt::print("word perplexity {:.4f} over {} words\n",
               json["word_perplexity"].get<double>(),
               json["words"].get<int64_t>());
  }
  const double active = json["active_parameters"].get<double>();
  const auto total = json["non_embedding_parameters"].get<double>();
  fmt::print("active experts {} | active parameters {:.0f} of {:.0f} ({:.1f} %) | {:.0f} tok/s\n",
             json["active_experts"].dump(),
             active,
             total,
             100.0 * active / total,
             json["tokens_per_second"].get<double>());
  for (const auto& [kind, layers] : json["expert_use"].items()) {
    std::vector<std::string> counts;
    for (const auto& layer : layers) {
      counts.push_back(fmt::format("{:.2f}", layer["active"].get<double>()));
    }
    fmt::print("{} by layer: {}\n", kind, fmt::join(counts, " "));
  }
}

int eval(const Options& options) {
  auto loaded = load_checkpoint(options.model);
  const int64_t context = loaded.model->config().max_seq_len;
  const auto text = read_eval_text(options.data, *loaded.tokenizer, options.documents, context);
  const auto n_words = count_for(options.words, text);
  install_stop_signal();
  const auto result = evaluate_perplexity(loaded.model,
                                          text,
                                          {.window = options.window,
                                           .stride = options.stride,
                                           .batch = options.batch,
                                           .plan = loaded.plan,
                                           .compute_dtype = loaded.compute_dtype,
                                           .stop = stop_requested});
  const auto json = to_json(options, loaded, result, n_words);
  if (options.json) {
    print_json(json);
  } else {
    print_text(json);
  }
  return result.complete ? 0 : kExitStopped;
}

}  // namespace

void add_eval_command(CLI::App& app, CommandRun& run) {
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand(
      "eval",
      "Measures perplexity under a routing policy.\n"
      "Example: dsmoe eval runs/quickstart --data data/tinyshakespeare/valid.txt --policy "
      "threshold=0.48");
  add_model_options(*command, options->model);
  command->add_option("--data", options->data, "text or .jsonl file, or token shards")->required();
  command->add_option(
      "--window", options->window, "tokens per forward pass (default: the context)");
  command->add_option("--stride", options->stride, "new tokens per window (default: window)");
  command->add_option("--batch", options->batch, "windows per forward pass")
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 20));
  command->add_option("--words",
                      options->words,
                      "divide by a number of words: N, or auto (white-space words plus line ends)");
  command->add_flag("--documents", options->documents, "each document alone, cut to the context");
  command->add_flag("--json", options->json, "one JSON object on standard output");
  command->callback([options, &run] { run = [options] { return eval(*options); }; });
}

}  // namespace dsmoe
