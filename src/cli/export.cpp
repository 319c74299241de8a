#include <fmt/format.h>

#include "cli/command_support.h"
#include "cli/options/export.h"
#include "cli/run_functions.h"
#include "common/error.h"
#include "common/interruptible_io.h"
#include "common/standard_output.h"
#include "data/gguf_tokenizer.h"
#include "data/hf_tokenizer_export.h"
#include "data/tokenizer_files.h"
#include "model/io/export_model.h"

namespace dsmoe {
namespace {

using Options = ExportCommand;

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

void write_logits(const Options& options, const ExportReport& report) {
  const nlohmann::json json = {{"tokens", nested_list<int64_t>(report.tokens)},
                               {"logits", nested_list<float>(report.logits)}};
  write_output_file(posix_io(), options.logits, json.dump() + "\n", existing_of(options.force));
}

struct Result {
  std::string policy;
  bool has_tokenizer = false;
  ExportReport report;
};

nlohmann::ordered_json to_json(const Options& options, const Result& result) {
  const auto& report = result.report;
  return {{"out", options.out},
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
          {"max_abs_logit_error", report.max_abs_logit_error}};
}

void print_text(const Options& options, const Result& result, const std::string& checkpoint) {
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
      "model's{}\n",
      report.tokens.numel(),
      report.max_abs_logit,
      report.max_abs_logit_error,
      options.dtype == "float32" ? "" : " with weights of that type");
  if (!result.has_tokenizer) {
    print_out("without the tokenizer, which {} cannot express\n", options.target);
  }
}

std::vector<std::pair<std::string, std::string>> tokenizer_files_of(const Options& options,
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
  const Result result{.policy = request.plan.to_string(),
                      .has_tokenizer = options.target == "gguf" ? !request.gguf_tokenizer.empty()
                                                                : !request.files.empty(),
                      .report = export_model(io, model, options.target, request, options.out)};
  if (options.json) {
    print_json(to_json(options, result));
  } else {
    print_text(options, result, checkpoint.directory);
  }
  if (!options.logits.empty()) write_logits(options, result.report);
  return 0;
}

}  // namespace dsmoe
