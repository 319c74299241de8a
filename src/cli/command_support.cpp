#include "cli/command_support.h"

#include <ATen/Parallel.h>
#include <fmt/format.h>

#include <chrono>

#include "cli/device.h"
#include "common/cpu_features.h"
#include "common/error.h"
#include "common/log.h"
#include "common/process_setup.h"
#include "common/share.h"
#include "common/standard_output.h"
#include "common/thread_pool.h"
#include "data/tokenizer_files.h"
#include "model/expert_usage.h"
#include "model/io/inference_dtype.h"
#include "model/io/packed_loader.h"

namespace dsmoe {

void set_threads(int threads) {
  if (threads > 0) at::set_num_threads(threads);
  if (threads > 0) set_kernel_threads(threads);
}

PackedFormat parse_weight_format(const std::string& dtype) {
  if (dtype == "float32") return PackedFormat::kFloat32;
  if (dtype == "bfloat16") return PackedFormat::kBfloat16;
  if (dtype == "int8") return PackedFormat::kInt8;
  throw Error(fmt::format("--dtype: expected float32, bfloat16 or int8, got '{}'", dtype));
}

at::ScalarType compute_type_of(PackedFormat format) {
  return format != PackedFormat::kFloat32 && has_fast_bfloat16() ? at::kBFloat16 : at::kFloat;
}

void validate_plan(const RoutingPlan& plan, const ModelConfig& config) {
  plan.validate(static_cast<size_t>(config.n_layers),
                config.attention.kind == AttentionKind::kMoa ? config.attention.n_experts : 0,
                config.has_ffn_experts() ? config.ffn.n_experts : 0);
}

namespace {

std::string weight_format_name(PackedFormat format) {
  switch (format) {
    case PackedFormat::kFloat32:
      return "float32";
    case PackedFormat::kBfloat16:
      return "bfloat16";
    case PackedFormat::kInt8:
      return "int8";
  }
  throw Error("--dtype: unknown format");
}

c10::Device device_of(const ModelOptions& options, PackedFormat format) {
  if (format != PackedFormat::kInt8) return open_device(options.device);
  if (options.device == "cpu" || options.device == "auto") return c10::kCPU;
  throw Error(
      fmt::format("--dtype int8: expected --device cpu, whose kernels alone have it, got '{}'",
                  options.device));
}

}  // namespace

LoadedCheckpoint load_checkpoint(const ModelOptions& options) {
  const bool takes_default = options.dtype == "auto";
  auto format = takes_default ? PackedFormat::kFloat32 : parse_weight_format(options.dtype);
  const auto device = device_of(options, format);
  const auto execution = parse_execution(options.execution);
  set_threads(options.threads);
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  auto& io = posix_io();
  LoadedCheckpoint loaded{.checkpoint = find_checkpoint(io, options.checkpoint),
                          .tokenizer = nullptr,
                          .dtype = {},
                          .dtype_reason = {},
                          .compute_dtype = at::kFloat};
  const auto& directory = loaded.checkpoint.directory;
  const auto config = read_model_config(io, directory);
  if (takes_default && device.is_cpu()) {
    const auto taken = default_dtype(read_trained_dtype(io, directory), has_fast_bfloat16());
    format = taken.format;
    loaded.dtype_reason = taken.reason;
  }
  loaded.dtype = weight_format_name(format);
  loaded.compute_dtype = compute_type_of(format);
  loaded.plan = parse_routing_plan(options.policy.empty() ? config.training_policy : options.policy)
                    .with(execution);
  validate_plan(loaded.plan, config);
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
  if (device.is_cpu()) {
    loaded.model = load_packed_model(io, loaded.checkpoint, {.format = format});
  } else {
    loaded.model = load_model(io, loaded.checkpoint);
    loaded.model->to(device);
    loaded.compute_dtype = format == PackedFormat::kFloat32 ? at::kFloat : at::kBFloat16;
  }
  loaded.load_seconds = std::chrono::duration<double>(Clock::now() - start).count();
  return loaded;
}

LoadedBytes loaded_bytes(const Transformer& model) {
  return {.weights = weight_memory_bytes(model), .peak = peak_memory_bytes()};
}

void add_load_json(nlohmann::ordered_json& json, double load_seconds, const LoadedBytes& bytes) {
  json["load_seconds"] = load_seconds;
  json["weight_bytes"] = bytes.weights;
  json["peak_memory_bytes"] = bytes.peak;
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
  // JSON leaves DEL, C1 and marks of direction as they are.
  const auto text = json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  standard_output().write(printable_text(text) + "\n");
}

std::string active_experts_text(const ActiveExperts& active) {
  std::vector<std::string> kinds;
  if (!active.moe.empty()) kinds.push_back(fmt::format("moe {:.2f}", mean_over_layers(active.moe)));
  if (!active.moa.empty()) kinds.push_back(fmt::format("moa {:.2f}", mean_over_layers(active.moa)));
  return fmt::format("{}", fmt::join(kinds, ", "));
}

void print_weights(const LoadedCheckpoint& loaded) {
  print_out("weights {}{}\n",
            loaded.dtype,
            loaded.dtype_reason.empty() ? "" : ": " + loaded.dtype_reason);
}

double parse_share_option(const std::string& option, const std::string& text) {
  if (const auto share = parse_share(text)) return *share;
  throw Error(fmt::format("{}: expected a share such as 1% or 0.01, got '{}'", option, text));
}

nlohmann::ordered_json active_experts_json(const ActiveExperts& active) {
  nlohmann::ordered_json json = nlohmann::ordered_json::object();
  if (!active.moe.empty()) json["moe"] = mean_over_layers(active.moe);
  if (!active.moa.empty()) json["moa"] = mean_over_layers(active.moa);
  return json;
}

}  // namespace dsmoe
