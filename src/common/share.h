#pragma once

#include <optional>
#include <string_view>

namespace dsmoe {

/// Reads a share as people write it: `1%`, `0.5 %` or `0.01`. Empty for any other text and for a
/// share that is negative or not finite.
std::optional<double> parse_share(std::string_view text);

}  // namespace dsmoe
