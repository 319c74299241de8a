#include <fmt/format.h>
#include <torch/version.h>

#include <memory>

#include "cli/command_support.h"
#include "cli/commands.h"
#include "cli/conversion.h"
#include "cli/text_options.h"
#include "common/error.h"
#include "common/interruptible_io.h"
#include "common/standard_output.h"
#include "data/tokenizer_files.h"
#include "eval/perplexity.h"
#include "model/io/checkpoint_writer.h"
#include "model/moe/ffn_partition.h"

namespace dsmoe {
namespace {

struct Options {
  std::string source;
  std::string out;
  TokenizerChoice tokenizer;
  std::string partition;
  std::string text;
  bool force = false;
  TextFormat format;
  int threads = 0;
  bool json = false;
};

constexpr const char* kUntrained =
    "a freshly cut model must be trained on: its routers are random, so its FFNs run at about half "
    "strength and noisily until then";

ConvertedContents contents_of(const Tokenizer& tokenizer) {
  ConvertedContents contents;
  contents.manifest.run_id = "convert";
  contents.manifest.tokenizer_fingerprint = tokenizer.fingerprint();
  contents.manifest.code_version = DSMOE_VERSION;
  contents.manifest.torch_version = TORCH_VERSION;
  for (auto& file : tokenizer_files(tokenizer)) {
    contents.files.emplace_back(file.name, std::move(file.bytes));
  }
  return contents;
}

double perplexity_of(Transformer& model, const EvalText& text, const RoutingPlan& plan) {
  PerplexityOptions options;
  options.plan = plan;
  return evaluate_perplexity(model, text, options).perplexity();
}

// The dense model, the cut one as that dense model, and the cut one as it runs.
nlohmann::ordered_json compare(const Options& options,
                               const OpenedSource& source,
                               const EvalText& text) {
  auto& io = posix_io();
  nlohmann::ordered_json json;
  auto original = instantiate(source.model);
  const auto original_plan = parse_routing_plan(source.model.config.training_policy);
  json["source_perplexity"] = perplexity_of(original, text, original_plan);
  const auto tokens = comparison_tokens(source.model.config);
  const at::NoGradGuard no_grad;
  const auto expected = original->forward(tokens, original_plan).logits;
  original = nullptr;
  auto written = load_model(io, find_checkpoint(io, options.out));
  const auto plan = parse_routing_plan(written->config().training_policy);
  written->force_gates(true);
  const auto logits = written->forward(tokens, plan).logits;
  json["max_abs_logit_error"] = (logits - expected).abs().max().item<double>();
  if (options.partition.empty()) return json;
  json["forced_gates_perplexity"] = perplexity_of(written, text, plan);
  written->force_gates(false);
  json["perplexity"] = perplexity_of(written, text, plan);
  return json;
}

void print_text(const Options& options, const nlohmann::ordered_json& json) {
  print_out("{}: {} tensors read, {} written to {}\n",
            options.source,
            json["tensors_read"].get<int64_t>(),
            json["tensors_written"].get<int64_t>(),
            options.out);
  if (json.contains("source_perplexity")) {
    print_out("perplexity of {}: {:.4f}; largest difference of its logits here: {:.1e}\n",
              options.source,
              json["source_perplexity"].get<double>(),
              json["max_abs_logit_error"].get<double>());
  }
  if (json.contains("perplexity")) {
    print_out("cut, every gate forced to 1: {:.4f}\ncut, {}: {:.4f}\n",
              json["forced_gates_perplexity"].get<double>(),
              json["policy"].get<std::string>(),
              json["perplexity"].get<double>());
  }
  if (json.contains("warning")) print_out("{}\n", json["warning"].get<std::string>());
}

int convert(const Options& options) {
  set_threads(options.threads);
  const auto output = converted_output(options.out, existing_of(options.force));
  check_output_directory(output);
  const auto source = open_source(posix_io(), options.source, options.tokenizer);
  auto model = source.model;
  if (!options.partition.empty()) {
    model = partition_ffn(model, parse_partition_options(options.partition));
  }
  // Before the work: a text that cannot be read leaves nothing.
  EvalText text;
  if (!options.text.empty()) {
    text = read_eval_text(options.text, *source.tokenizer, false, 0, options.format);
  }
  write_converted(interruptible_io(), output, model, contents_of(*source.tokenizer));
  // Every tensor is accounted for by now: what is missing or left over has stopped the conversion.
  nlohmann::ordered_json json = {{"source", source.kind},
                                 {"tensors_read", source.model.tensors.size()},
                                 {"tensors_written", model.tensors.size()},
                                 {"unused", nlohmann::json::array()},
                                 {"missing", nlohmann::json::array()},
                                 {"max_abs_logit_error", nullptr},
                                 {"policy", model.config.training_policy}};
  if (!options.text.empty()) json.update(compare(options, source, text));
  if (!options.partition.empty()) json["warning"] = kUntrained;
  if (options.json) {
    print_json(json);
  } else {
    print_text(options, json);
  }
  return 0;
}

}  // namespace

void add_convert_command(CommandLine& line) {
  auto options = std::make_shared<Options>();
  auto& command = line.subcommand(
      "convert",
      "Makes a checkpoint of a model in another format, or cuts its FFNs into experts.\n"
      "Example: dsmoe convert stories260K.bin dense --tokenizer tok512.bin\n"
      "         dsmoe convert dense cut --partition n_experts=4 --text valid.txt");
  command
      .option("source",
              options->source,
              "Hugging Face LLaMA directory, llama2.c .bin, checkpoint or run directory")
      .path()
      .required();
  command.option("out", options->out, "new checkpoint directory").path().required();
  command
      .option("--tokenizer",
              options->tokenizer.spec,
              "bytes, a .model, tokenizer.json or llama2.c .bin file (default: the source's own)")
      .path();
  command.flag("--other-tokenizer",
               options->tokenizer.may_differ,
               "take --tokenizer even where the source has another");
  command.option("--partition",
                 options->partition,
                 "n_experts=8[,method=contiguous|random,seed=S,layers=0-3+7,router_std=0.02]: "
                 "cut the FFNs into experts; routers of N(0, router_std)");
  const auto text = command
                        .option("--text",
                                options->text,
                                fmt::format("compare perplexities before and after: token shards, "
                                            "or a file of {}",
                                            kTextHelp))
                        .path();
  add_text_options(command, options->format, text);
  add_force_option(command, options->force);
  command.option("--threads", options->threads, "0: all cores").range(0, 4096);
  command.flag("--json", options->json, "one JSON object on standard output");
  command.on_run([options] { return convert(*options); });
}

}  // namespace dsmoe
