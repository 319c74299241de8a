#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

namespace dsmoe {

/// Checks the keys of a LLaMA's `config.json` that parse_llama_config does not read.
///
/// returns  unknown keys that may change what the model computes; keys of rotary settings include
///          their section
/// Throws Error naming a key that enables an unsupported feature: quantized weights, sliding
/// windows, capped logits, multipliers, experts.
std::vector<std::string> check_llama_keys(const nlohmann::json& config,
                                          const std::string& source_name);

}  // namespace dsmoe
