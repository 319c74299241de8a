#include <fmt/format.h>
#include <torch/version.h>

#include <optional>

#include "cli/command_support.h"
#include "cli/conversion.h"
#include "cli/options/convert.h"
#include "cli/run_functions.h"
#include "common/error.h"
#include "common/interruptible_io.h"
#include "common/standard_output.h"
#include "data/tokenizer_files.h"
#include "eval/conversion_check.h"
#include "model/io/checkpoint_writer.h"
#include "model/moe/ffn_partition.h"

namespace dsmoe {
namespace {

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

struct Result {
  std::string source;  // kind
  size_t tensors_read = 0;
  size_t tensors_written = 0;
  std::string policy;
  bool is_cut = false;
  std::optional<ConversionComparison> comparison;
};

// Every tensor is accounted for: what is missing or left over has stopped the conversion.
nlohmann::ordered_json to_json(const Result& result) {
  nlohmann::ordered_json json = {{"source", result.source},
                                 {"tensors_read", result.tensors_read},
                                 {"tensors_written", result.tensors_written},
                                 {"unused", nlohmann::json::array()},
                                 {"missing", nlohmann::json::array()},
                                 {"max_abs_logit_error", nullptr},
                                 {"policy", result.policy}};
  if (const auto& comparison = result.comparison) {
    json["source_perplexity"] = comparison->source_perplexity;
    json["max_abs_logit_error"] = comparison->max_abs_logit_error;
    if (comparison->perplexity) {
      json["forced_gates_perplexity"] = *comparison->forced_gates_perplexity;
      json["perplexity"] = *comparison->perplexity;
    }
  }
  if (result.is_cut) json["warning"] = kUntrained;
  return json;
}

void print_text(const ConvertCommand& options, const Result& result) {
  print_out("{}: {} tensors read, {} written to {}\n",
            options.source,
            result.tensors_read,
            result.tensors_written,
            options.out);
  if (const auto& comparison = result.comparison) {
    print_out("perplexity of {}: {:.4f}; largest difference of its logits here: {:.1e}\n",
              options.source,
              comparison->source_perplexity,
              comparison->max_abs_logit_error);
    if (comparison->perplexity) {
      print_out("cut, every gate forced to 1: {:.4f}\ncut, {}: {:.4f}\n",
                *comparison->forced_gates_perplexity,
                result.policy,
                *comparison->perplexity);
    }
  }
  if (result.is_cut) print_out("{}\n", kUntrained);
}

}  // namespace

int run_convert(const ConvertCommand& options) {
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
  Result result{.source = source.kind,
                .tensors_read = source.model.tensors.size(),
                .tensors_written = model.tensors.size(),
                .policy = model.config.training_policy,
                .is_cut = !options.partition.empty(),
                .comparison = {}};
  if (!options.text.empty()) {
    auto& io = posix_io();
    const auto converted = open_checkpoint(io, find_checkpoint(io, options.out));
    result.comparison = compare_conversion(source.model, converted, result.is_cut, text);
  }
  if (options.json) {
    print_json(to_json(result));
  } else {
    print_text(options, result);
  }
  return 0;
}

}  // namespace dsmoe
