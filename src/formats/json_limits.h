#pragma once

#include <nlohmann/json.hpp>

#include <string>

namespace dsmoe {

/// Parses JSON of unknown origin. Throws Error naming the source: not JSON, not UTF-8, deeper than
/// 64 levels, a key twice in one object, more than max_size_bytes.
nlohmann::json parse_json(const std::string& text,
                          const std::string& source_name,
                          size_t max_size_bytes);

}  // namespace dsmoe
