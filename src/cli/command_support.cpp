#include "cli/command_support.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <iostream>

#include "common/cpu_features.h"
#include "common/error.h"
#include "common/log.h"
#include "data/tokenizer_files.h"
#include "model/expert_usage.h"

namespace dsmoe {

void add_model_options(CLI::App& command, ModelOptions& options) {
  command
      .add_option(
          "checkpoint", options.checkpoint, "checkpoint or run directory (its newest valid one)")
      ->required();
  command.add_option("--policy",
                     options.policy,
                     "experts used: all, top_k=K, threshold=E, threshold=E,max=K, "
                     "threshold_top_k=E, moe:P;moa:P or routing=FILE.yaml (default: the training "
                     "selection)");
  command.add_option("--execution", options.execution, "auto, dense or sparse");
  command.add_option("--device", options.device, "cpu, cuda or auto");
  command.add_option("--dtype", options.dtype, "of matrix products: float32 or bfloat16");
  command.add_option("--threads", options.threads, "0: all cores")->check(CLI::Range(0, 4096));
}

void set_threads(int threads) {
  if (threads > 0) at::set_num_threads(threads);
}

LoadedCheckpoint load_checkpoint(const ModelOptions& options) {
  if (options.device != "cpu" && options.device != "auto") {
    throw Error(fmt::format(
        "--device: expected cpu or auto, got '{}'; this build has no CUDA module", options.device));
  }
  if (options.dtype != "float32" && options.dtype != "bfloat16") {
    throw Error(fmt::format("--dtype: expected float32 or bfloat16, got '{}'", options.dtype));
  }
  const bool bfloat16 = options.dtype == "bfloat16";
  if (bfloat16 && !has_fast_bfloat16()) {
    log_warning("bfloat16: this CPU has no AVX512-BF16; float32 is many times faster");
  }
  const auto execution = parse_execution(options.execution);
  set_threads(options.threads);
  auto& io = posix_io();
  LoadedCheckpoint loaded{.checkpoint = find_checkpoint(io, options.checkpoint),
                          .tokenizer = nullptr,
                          .compute_dtype = bfloat16 ? at::kBFloat16 : at::kFloat};
  const auto& directory = loaded.checkpoint.directory;
  const auto config = read_model_config(io, directory);
  loaded.plan = parse_routing_plan(options.policy.empty() ? config.training_policy : options.policy)
                    .with(execution);
  loaded.plan.validate(
      static_cast<size_t>(config.n_layers),
      config.attention.kind == AttentionKind::kMoa ? config.attention.n_experts : 0,
      config.has_ffn_experts() ? config.ffn.n_experts : 0);
  loaded.tokenizer = load_tokenizer(io, directory);
  if (loaded.tokenizer->fingerprint() != loaded.checkpoint.manifest.tokenizer_fingerprint) {
    throw Error(fmt::format("{}: expected tokenizer {}, got {}",
                            directory,
                            loaded.checkpoint.manifest.tokenizer_fingerprint,
                            loaded.tokenizer->fingerprint()));
  }
  if (loaded.tokenizer->vocab_size() > config.vocab_size) {
    throw Error(fmt::format("{}: the tokenizer has {} ids, the model {}",
                            directory,
                            loaded.tokenizer->vocab_size(),
                            config.vocab_size));
  }
  loaded.model = load_model(io, loaded.checkpoint);
  return loaded;
}

std::vector<std::string> take_overrides(const std::string& command,
                                        const std::vector<std::string>& arguments) {
  std::vector<std::string> overrides;
  for (const auto& argument : arguments) {
    if (argument.rfind("--", 0) != 0 || argument.find('=') == std::string::npos) {
      throw Error(fmt::format("{}: expected --section.key=value, got '{}'", command, argument));
    }
    overrides.push_back(argument.substr(2));
  }
  return overrides;
}

void print_json(const nlohmann::ordered_json& json) {
  std::cout << json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << std::endl;
}

nlohmann::ordered_json active_experts_json(const ActiveExperts& active) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (!active.moe.empty()) json["moe"] = mean_over_layers(active.moe);
  if (!active.moa.empty()) json["moa"] = mean_over_layers(active.moa);
  return json;
}

}  // namespace dsmoe
