#pragma once

#include <map>
#include <string>

namespace dsmoe {

/// Parses `model.safetensors.index.json`: maps each tensor to its file. Throws Error naming
/// source_name: not JSON, no weight_map, a file name with a folder in it or without the ending
/// .safetensors.
std::map<std::string, std::string> parse_sharded_index(const std::string& text,
                                                       const std::string& source_name);

}  // namespace dsmoe
