#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <vector>

#include "model/model_config.h"

namespace dsmoe {

/// What a LLaMA's `config.json` says, in our terms. Its special tokens are the tokenizer's business
/// (read_hf_special_tokens).
struct LlamaConfig {
  ModelConfig model;                      ///< dense; validated
  std::vector<std::string> unknown_keys;  ///< that may change the function; see check_llama_keys
};

/// Parses the `config.json` of a Hugging Face LLaMA directory, old and new spellings of the rotary
/// settings included. Throws Error naming source_name and key for another architecture, a missing
/// or out-of-range value, and what this program does not compute: other activations, other rotary
/// scalings, biases in one half only, and what check_llama_keys refuses.
LlamaConfig parse_llama_config(const std::string& text, const std::string& source_name);

/// The `config.json` of a dense model, as parse_llama_config reads it, without special tokens.
/// torch_dtype: for example `float32`.
nlohmann::ordered_json llama_config_to_json(const ModelConfig& model,
                                            const std::string& torch_dtype);

/// One weight of a LLaMA under both names.
struct LlamaTensor {
  std::string hf_name;
  std::string name;  ///< of this program's checkpoints
  std::vector<int64_t> shape;
  int64_t n_rotary_heads = 0;  ///< heads whose rows are turned; 0: none are
};

/// Every weight of a model of that config; the experts of a partitioned FFN are the dense matrices,
/// its routers are left out.
std::vector<LlamaTensor> llama_tensors(const ModelConfig& config);

/// What a LLaMA cannot express of a model, its partitioned FFNs taken as the dense ones; empty: it
/// is one.
std::vector<std::string> llama_obstacles(const ModelConfig& config);

}  // namespace dsmoe
