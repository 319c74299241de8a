#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace dsmoe {

/// Returns the offset of the first byte that is not UTF-8, or npos.
size_t find_invalid_utf8(std::string_view text);

/// Removes the first character of a valid, non-empty UTF-8 text and returns its code point.
uint32_t next_code(std::string_view& text);

/// Appends a code point as UTF-8.
void append_utf8(std::string& text, uint32_t code);

/// Returns true at the first byte of a character.
inline bool begins_character(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
}

/// Emits only whole UTF-8 characters of a growing byte stream, so that a terminal never receives
/// half a character. The emitted bytes, joined, are the stream; invalid bytes pass once they cannot
/// become valid.
class Utf8Stream {
 public:
  /// Adds bytes; returns the complete characters.
  std::string push(std::string_view bytes);
  /// Ends the stream; returns the rest, complete or not.
  std::string finish();

 private:
  std::string pending_;
};

}  // namespace dsmoe
