#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include "model/model_config.h"

namespace dsmoe {

/// The `config.json` of a LLaMA as a ModelConfig. read_hf_special_tokens reads its special tokens.
struct LlamaConfig {
  ModelConfig model;                      ///< dense; validated
  std::vector<std::string> unknown_keys;  ///< may change the function; see check_llama_keys
};

/// Parses the `config.json` of a Hugging Face LLaMA directory, with old or new spellings of the
/// rotary settings. Throws Error naming source_name and key for another architecture, a missing or
/// out-of-range value, and unsupported features: other activations, other rotary scalings, biases
/// in one half only, and keys that check_llama_keys refuses.
LlamaConfig parse_llama_config(const std::string& text, const std::string& source_name);

/// Writes the `config.json` of a dense model for parse_llama_config, without special tokens.
/// torch_dtype: for example `float32`.
nlohmann::ordered_json llama_config_to_json(const ModelConfig& model,
                                            const std::string& torch_dtype);

/// One weight of a LLaMA under both names.
struct LlamaTensor {
  std::string hf_name;
  std::string name;  ///< of this program's checkpoints
  std::vector<int64_t> shape;
  int64_t n_rotary_heads = 0;  ///< heads with reordered rotary rows; 0: none
};

/// Every weight of a model of that config; the experts of a partitioned FFN are listed as dense
/// matrices, its routers are omitted.
std::vector<LlamaTensor> llama_tensors(const ModelConfig& config);

/// Returns the features of a model that a LLaMA cannot express, with partitioned FFNs counted as
/// dense; empty: the model is a LLaMA.
std::vector<std::string> llama_obstacles(const ModelConfig& config);

}  // namespace dsmoe
