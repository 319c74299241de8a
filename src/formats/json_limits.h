#pragma once

#include <nlohmann/json.hpp>

#include <cstddef>
#include <string>
#include <vector>

namespace dsmoe {

/// Limits for JSON of unknown origin.
struct JsonLimits {
  size_t max_size_bytes = 1 << 20;
  size_t max_tree_bytes = 900'000;   ///< of the values in memory, by an estimate from above
  size_t max_token_bytes = 1 << 19;  ///< of one text or number
  /// Tables that are left empty in the tree, as `model.vocab`: an object of whole numbers, or a
  /// list of texts or of pairs of texts and numbers. read_json_table walks them.
  std::vector<std::string> tables = {};
};

/// Parses JSON of unknown origin. Throws Error naming the source: not JSON, not UTF-8, deeper than
/// 64 levels, a key twice in one object (tables are left to their reader), above a limit. Checks
/// everything before it builds anything, so that refused input holds no more than the limits.
nlohmann::json parse_json(const std::string& text,
                          const std::string& source_name,
                          const JsonLimits& limits);

/// The same with a limit of the size only, for files that this program or its user wrote.
nlohmann::json parse_json(const std::string& text,
                          const std::string& source_name,
                          size_t max_size_bytes);

}  // namespace dsmoe
