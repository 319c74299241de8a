#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/options/model_options.h"
#include "common/exit_codes.h"
#include "common/staged_output.h"
#include "data/tokenizer.h"
#include "model/io/checkpoint_reader.h"
#include "model/moe/routing_plan.h"
#include "model/packed_weights.h"
#include "model/parameter_count.h"
#include "model/transformer.h"

namespace dsmoe {

/// For --force.
inline Existing existing_of(bool force) { return force ? Existing::kReplace : Existing::kRefuse; }

/// A checkpoint made ready to run.
struct LoadedCheckpoint {
  VerifiedCheckpoint checkpoint;
  Transformer model{nullptr};
  std::unique_ptr<Tokenizer> tokenizer;
  RoutingPlan plan{RoutingPolicy::all()};
  std::string dtype;         ///< number type of the weights, as for --dtype
  std::string dtype_reason;  ///< why it was taken; empty: it was asked for
  at::ScalarType compute_dtype;
  double load_seconds = 0;  ///< hashes compared, tokenizer, weights packed
};

/// Returns the format of the weights for a --dtype: float32, bfloat16 or int8. Throws Error.
PackedFormat parse_weight_format(const std::string& dtype);

/// What products of weights so laid out are fed with: bfloat16 where the CPU multiplies it.
at::ScalarType compute_type_of(PackedFormat format);

/// Throws Error for a checkpoint, policy, device or type that does not fit.
LoadedCheckpoint load_checkpoint(const ModelOptions& options);

/// Throws Error if the plan does not fit the model's layers and experts.
void validate_plan(const RoutingPlan& plan, const ModelConfig& config);

/// Sets the number of threads; 0 keeps torch's own choice.
void set_threads(int threads);

/// `--section.key=value` arguments, without the dashes. Throws Error naming the command for any
/// other.
std::vector<std::string> take_overrides(const std::string& command,
                                        const std::vector<std::string>& arguments);

/// Memory of a model just loaded and used.
struct LoadedBytes {
  int64_t weights = 0;
  int64_t peak = 0;  ///< of the process until now
};
LoadedBytes loaded_bytes(const Transformer& model);

/// `load_seconds`, `weight_bytes`, `peak_memory_bytes`.
void add_load_json(nlohmann::ordered_json& json, double load_seconds, const LoadedBytes& bytes);

/// One JSON object on standard output; see StandardOutput for failures.
void print_json(const nlohmann::ordered_json& json);

/// The same as text: `moe 1.21, moa 2.41`.
std::string active_experts_text(const ActiveExperts& active);

/// Prints a line with the number type of the weights and why it was taken.
void print_weights(const LoadedCheckpoint& loaded);

/// Reads a share such as 1% or 0.01. Throws Error naming the option.
double parse_share_option(const std::string& option, const std::string& text);

/// `{"moe": mean, "moa": mean}`, without a kind that the model does not have.
nlohmann::ordered_json active_experts_json(const ActiveExperts& active);

}  // namespace dsmoe
