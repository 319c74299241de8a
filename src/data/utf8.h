#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace dsmoe {

/// Where a byte sequence stops being UTF-8: the offset of the first bad byte, or npos.
size_t find_invalid_utf8(std::string_view text);

/// Takes the first character of a valid UTF-8 text that is not empty, and returns its code point.
uint32_t next_code(std::string_view& text);

/// Appends a code point as UTF-8.
void append_utf8(std::string& text, uint32_t code);

/// True at the first byte of a character.
inline bool begins_character(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
}

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
