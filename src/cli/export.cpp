#include <fmt/format.h>

#include <optional>

#include "cli/command_support.h"
#include "cli/options/export.h"
#include "cli/run_functions.h"
#include "common/error.h"
#include "common/interruptible_io.h"
#include "common/standard_output.h"
#include "data/gguf_tokenizer.h"
#include "data/hf_tokenizer_export.h"
#include "data/tokenizer_files.h"
#include "eval/conversion_check.h"
#include "model/io/export_model.h"
#include "model/io/llama_export.h"

namespace dsmoe {
namespace {

at::ScalarType parse_dtype(const std::string& text) {
  if (text == "float32") return at::kFloat;
  if (text == "float16") return at::kHalf;
  if (text == "bfloat16") return at::kBFloat16;
  throw Error(fmt::format("--dtype: expected float32, float16 or bfloat16, got '{}'", text));
}

template <class T>
nlohmann::json nested_list(const at::Tensor& tensor) {
  if (tensor.dim() == 0) return tensor.item<T>();
  auto list = nlohmann::json::array();
  for (int64_t i = 0; i < tensor.size(0); ++i) list.push_back(nested_list<T>(tensor[i]));
  return list;
}

void write_logits(const ExportCommand& options, const ExportReport& report) {
  const nlohmann::json json = {{"tokens", nested_list<int64_t>(report.tokens)},
                               {"logits", nested_list<float>(report.logits)}};
  write_output_file(posix_io(), options.logits, json.dump() + "\n", existing_of(options.force));
}

struct Result {
  std::string policy;
  bool has_tokenizer = false;
  ExportReport report;
  std::optional<Divergence> joined;  // from a partitioned model under its own policy
};

nlohmann::ordered_json to_json(const ExportCommand& options, const Divergence& joined) {
  nlohmann::ordered_json json = {{"tokens", options.text.empty() ? "random" : options.text},
                                 {"tokens_scored", joined.model.tokens_scored},
                                 {"kl_divergence", joined.kl_per_token()},
                                 {"top1_agreement", joined.top1_agreement()}};
  if (options.text.empty()) return json;
  json["perplexity"] = joined.model.perplexity();
  json["own_perplexity"] = joined.reference.perplexity();
  return json;
}

void print_joined(const ExportCommand& options, const Result& result) {
  const auto& joined = *result.joined;
  print_out("against the model under its policy, {}:\n", result.policy);
  if (!options.text.empty()) {
    print_out("  perplexity {:.4f} as written, {:.4f} under {} ({:+.1f} %)\n",
              joined.model.perplexity(),
              joined.reference.perplexity(),
              result.policy,
              100 * (joined.model.perplexity() / joined.reference.perplexity() - 1));
  }
  print_out(
      "  KL divergence {:.4g} nats per token over {} {}; the same most likely token for {:.1f} "
      "%\n",
      joined.kl_per_token(),
      joined.model.tokens_scored,
      options.text.empty() ? "random tokens (--text compares perplexities)"
                           : "tokens of " + options.text,
      100 * joined.top1_agreement());
}

nlohmann::ordered_json to_json(const ExportCommand& options, const Result& result) {
  const auto& report = result.report;
  nlohmann::ordered_json json = {
      {"out", options.out},
      {"target", options.target},
      {"policy", result.policy},
      {"dtype", options.dtype},
      {"tokenizer", result.has_tokenizer},
      {"tensors_read", report.tensors_read},
      {"tensors_written", report.tensors_written},
      {"unused", nlohmann::ordered_json::array()},
      {"missing", nlohmann::ordered_json::array()},
      {"tokens_compared", report.tokens.numel()},
      {"max_abs_logit", report.max_abs_logit},
      {"max_abs_logit_error", report.max_abs_logit_error},
      {"compared", result.joined ? "every gate at 1, without routers" : "the model"}};
  if (result.joined) json["own_policy"] = to_json(options, *result.joined);
  return json;
}

void print_text(const ExportCommand& options, const Result& result, const std::string& checkpoint) {
  const auto& report = result.report;
  print_out("{}: {} tensors of {} written as {} in {}, policy {}\n",
            options.out,
            report.tensors_written,
            checkpoint,
            options.target,
            options.dtype,
            result.policy);
  print_out(
      "read back: logits of {} random tokens, up to {:.4g}, differ by at most {:.3g} from the "
      "model's{}{}\n",
      report.tokens.numel(),
      report.max_abs_logit,
      report.max_abs_logit_error,
      options.dtype == "float32" ? "" : " with weights of that type",
      result.joined ? " with every gate at 1 and the routers dropped" : "");
  if (result.joined) print_joined(options, result);
  if (!result.has_tokenizer) {
    print_out("without the tokenizer, which {} cannot express\n", options.target);
  }
}

std::vector<std::pair<std::string, std::string>> tokenizer_files_of(const ExportCommand& options,
                                                                    const Tokenizer& tokenizer) {
  std::vector<std::pair<std::string, std::string>> files;
  if (options.target == "gguf") return files;
  for (auto& file : hf_tokenizer_files(tokenizer)) {
    files.emplace_back(file.name, std::move(file.bytes));
  }
  return files;
}

}  // namespace

int run_export(const ExportCommand& options) {
  set_threads(options.threads);
  const auto dtype = parse_dtype(options.dtype);
  if (!options.logits.empty()) check_output_file(options.logits, existing_of(options.force));
  auto& io = interruptible_io();
  const auto checkpoint = find_checkpoint(io, options.checkpoint);
  const auto model = load_model(io, checkpoint);
  const auto tokenizer = load_tokenizer(io, checkpoint.directory);
  const auto& config = model->config();
  const ExportRequest request{
      .plan = parse_routing_plan(options.policy.empty() ? config.training_policy : options.policy),
      .dtype = dtype,
      .special_tokens = tokenizer->special_tokens(),
      .files = tokenizer_files_of(options, *tokenizer),
      .existing = existing_of(options.force),
      .gguf_tokenizer = options.target == "gguf" ? gguf_tokenizer(*tokenizer, config.vocab_size)
                                                 : GgufMetadata{}};
  request.plan.validate(
      static_cast<size_t>(config.n_layers),
      config.attention.kind == AttentionKind::kMoa ? config.attention.n_experts : 0,
      config.has_ffn_experts() ? config.ffn.n_experts : 0);
  // Before the work: a text that cannot be read leaves nothing.
  std::optional<EvalText> text;
  if (!options.text.empty()) {
    if (options.target != "hf-llama" || config.ffn.kind != FfnKind::kPartitioned) {
      throw Error("--text: expected --to hf-llama of a cut model, which loses its gates there");
    }
    text = read_eval_text(options.text, *tokenizer, false, 0, options.format);
  }
  Result result{.policy = request.plan.to_string(),
                .has_tokenizer = options.target == "gguf" ? !request.gguf_tokenizer.empty()
                                                          : !request.files.empty(),
                .report = export_model(io, model, options.target, request, options.out),
                .joined = {}};
  if (result.report.joined_partition) {
    result.joined = compare_joined(
        model, request.plan, read_llama(io, options.out), text ? *text : random_eval_text(config));
  }
  if (options.json) {
    print_json(to_json(options, result));
  } else {
    print_text(options, result, checkpoint.directory);
  }
  if (!options.logits.empty()) write_logits(options, result.report);
  return 0;
}

}  // namespace dsmoe
