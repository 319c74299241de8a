#include <fmt/format.h>

#include <memory>

#include "cli/command_support.h"
#include "cli/commands.h"
#include "cli/conversion.h"
#include "common/error.h"
#include "data/gguf_tokenizer.h"
#include "data/tokenizer_files.h"
#include "model/io/export_model.h"

namespace dsmoe {
namespace {

struct Options {
  std::string checkpoint;
  std::string out;
  std::string target;
  std::string policy;
  std::string dtype = "float32";
  std::string logits;
  int threads = 0;
  bool json = false;
};

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

void write_logits(const std::string& path, const ExportReport& report) {
  const nlohmann::json json = {{"tokens", nested_list<int64_t>(report.tokens)},
                               {"logits", nested_list<float>(report.logits)}};
  replace_file(posix_io(), path, json.dump() + "\n");
}

// True if the written model has the tokenizer.
bool write_tokenizer(const Options& options,
                     const Tokenizer& tokenizer,
                     const ExportRequest& request) {
  if (options.target == "gguf") return !request.gguf_tokenizer.empty();
  const auto files = hf_tokenizer_files(tokenizer);
  for (const auto& [name, bytes] : files) {
    write_file(posix_io(), options.out + "/" + name, bytes);
  }
  return !files.empty();
}

int export_checkpoint(const Options& options) {
  set_threads(options.threads);
  const auto dtype = parse_dtype(options.dtype);
  auto& io = posix_io();
  const auto checkpoint = find_checkpoint(io, options.checkpoint);
  const auto model = load_model(io, checkpoint);
  const auto tokenizer = load_tokenizer(io, checkpoint.directory);
  const auto& config = model->config();
  const ExportRequest request{
      .plan = parse_routing_plan(options.policy.empty() ? config.training_policy : options.policy),
      .dtype = dtype,
      .bos_id = tokenizer->bos_id(),
      .eos_id = tokenizer->eos_id(),
      .gguf_tokenizer = gguf_tokenizer(*tokenizer, config.vocab_size)};
  request.plan.validate(
      static_cast<size_t>(config.n_layers),
      config.attention.kind == AttentionKind::kMoa ? config.attention.n_experts : 0,
      config.has_ffn_experts() ? config.ffn.n_experts : 0);
  const auto report = export_model(io, model, options.target, request, options.out);
  const bool carries_tokenizer = write_tokenizer(options, *tokenizer, request);
  if (!options.logits.empty()) write_logits(options.logits, report);
  if (options.json) {
    print_json({{"out", options.out},
                {"target", options.target},
                {"policy", request.plan.to_string()},
                {"dtype", options.dtype},
                {"tokenizer", carries_tokenizer},
                {"tensors_read", report.tensors_read},
                {"tensors_written", report.tensors_written},
                {"unused", nlohmann::ordered_json::array()},
                {"missing", nlohmann::ordered_json::array()},
                {"max_abs_logit", report.max_abs_logit},
                {"max_abs_logit_error", report.max_abs_logit_error}});
    return 0;
  }
  fmt::print("{}: {} tensors of {} written as {} in {}, policy {}\n",
             options.out,
             report.tensors_written,
             checkpoint.directory,
             options.target,
             options.dtype,
             request.plan.to_string());
  fmt::print(
      "read back: logits of {} random tokens, up to {:.4g}, differ by at most {:.3g} from the "
      "model's{}\n",
      report.tokens.numel(),
      report.max_abs_logit,
      report.max_abs_logit_error,
      dtype == at::kFloat ? "" : " with weights of that type");
  if (!carries_tokenizer) {
    fmt::print("without the tokenizer, which {} cannot express\n", options.target);
  }
  return 0;
}

std::string list_of_targets() {
  std::vector<std::string> names;
  for (const auto& target : export_targets()) names.push_back(target.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace

void add_export_command(CommandLine& line) {
  auto options = std::make_shared<Options>();
  auto& command = line.subcommand(
      "export",
      "Writes a checkpoint in a foreign form, reads it back and compares the logits; refuses what "
      "the form cannot express.\n"
      "Example: dsmoe export runs/olmoe model.gguf --to gguf --policy top_k=8 --dtype bfloat16");
  command.option("checkpoint", options->checkpoint, "checkpoint or run directory").required();
  command.option("out", options->out, "path of the new file or directory").required();
  command.option("--to", options->target, list_of_targets()).required();
  command.option("--policy",
                 options->policy,
                 "the selection that the written model will use (default: the training one)");
  command.option("--dtype", options->dtype, "of the matrices: float32, float16 or bfloat16");
  command.option("--logits",
                 options->logits,
                 "JSON file for the random tokens of the check and the model's logits, to "
                 "compare other programs with");
  command.option("--threads", options->threads, "0: all cores").range(0, 4096);
  command.flag("--json", options->json, "one JSON object on standard output");
  command.on_run([options] { return export_checkpoint(*options); });
}

}  // namespace dsmoe
