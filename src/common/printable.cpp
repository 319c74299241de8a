#include "common/printable.h"

#include <fmt/format.h>

#include <cstdint>

namespace dsmoe {
namespace {

struct Character {
  uint32_t code_point = 0;
  size_t size_bytes = 0;  // 0: the first byte begins no valid character
};

// Decodes the first character; overlong forms, surrogates and codes above U+10FFFF are not valid.
Character first_character(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const size_t size = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < size) return {};
  uint32_t code_point = lead & (0xffu >> (size + 1));
  for (size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return {};
    code_point = code_point << 6 | (byte(i) & 0x3fu);
  }
  const bool is_overlong = (size == 3 && code_point < 0x800) || (size == 4 && code_point < 0x10000);
  const bool is_surrogate = code_point >= 0xd800 && code_point < 0xe000;
  if (is_overlong || is_surrogate || code_point > 0x10ffff) return {};
  return {code_point, size};
}

bool is_obeyed(uint32_t c) {
  const bool is_control = c < 0x20 || (c >= 0x7f && c < 0xa0);
  const bool is_direction = c == 0x061c || c == 0x200e || c == 0x200f ||
                            (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
  return is_control || is_direction || c == 0x2028 || c == 0x2029;
}

std::string escape(uint32_t c) {
  switch (c) {
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    default:
      return fmt::format("\\u{:04x}", c);
  }
}

std::string printable(std::string_view text, bool keeps_lines) {
  std::string result;
  result.reserve(text.size());
  while (!text.empty()) {
    const auto [code_point, size_bytes] = first_character(text);
    const bool is_kept = keeps_lines && (code_point == '\n' || code_point == '\t');
    if (size_bytes == 0) {
      result += fmt::format("\\x{:02x}", static_cast<uint8_t>(text[0]));
    } else if (is_obeyed(code_point) && !is_kept) {
      result += escape(code_point);
    } else {
      result += text.substr(0, size_bytes);
    }
    text.remove_prefix(size_bytes == 0 ? 1 : size_bytes);
  }
  return result;
}

}  // namespace

std::string printable_line(std::string_view text) { return printable(text, false); }

std::string printable_text(std::string_view text) { return printable(text, true); }

}  // namespace dsmoe
