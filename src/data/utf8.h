#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace dsmoe {

/// Where a byte sequence stops being UTF-8: the offset of the first bad byte, or npos.
size_t find_invalid_utf8(std::string_view text);

/// Gives out only whole UTF-8 characters of a growing byte stream, so that a terminal never sees
/// half of one. What it gave out, joined, is the stream; invalid bytes pass once they cannot become
/// valid.
class Utf8Stream {
 public:
  /// Adds bytes; returns what is complete.
  std::string push(std::string_view bytes);
  /// Ends the stream; returns what is left, whole or not.
  std::string finish();

 private:
  std::string pending_;
};

}  // namespace dsmoe
