#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

namespace dsmoe {

/// Checks the keys of a LLaMA's `config.json` that parse_llama_config takes nothing from.
///
/// returns  keys, those of rotary settings with their section, that this program has never heard of
///          and that may change what the model computes
/// Throws Error naming a key whose value changes what the model computes in a way that this program
/// does not have: quantized weights, sliding windows, capped logits, multipliers, experts.
std::vector<std::string> check_llama_keys(const nlohmann::json& config,
                                          const std::string& source_name);

}  // namespace dsmoe
