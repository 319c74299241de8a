#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace dsmoe {

/// Reads an integer as people write counts: `1500`, `1_000_000`, `1e5`, `1.5M`, `7b`. Suffixes in
/// any case: k, M, G or B, T are 10^3, 10^6, 10^9, 10^12. Exact: `1.5` and `1.2345k` are no
/// integers. Empty for any other text and beyond int64_t.
std::optional<int64_t> parse_count(std::string_view text);

/// Writes a count for people with three digits: `987`, `1.5k`, `20.3M`, `7.24B`, `1.5T`.
std::string short_count(double count);

}  // namespace dsmoe
