#include "data/utf8.h"

#include <cstdint>
#include <cstring>
#include <utility>

namespace dsmoe {
namespace {

// Length of the well-formed character at `at` (Unicode table 3-7), 0 if there is none.
size_t character_bytes(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
  };
  const auto continues = [&](size_t i) { return (byte(i) & 0xC0u) == 0x80u; };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4 || !continues(1)) return 0;
  if (lead < 0xE0) return 2;
  if (lead < 0xF0) {
    const bool overlong = lead == 0xE0 && byte(1) < 0xA0;
    const bool surrogate = lead == 0xED && byte(1) >= 0xA0;
    return !overlong && !surrogate && continues(2) ? 3 : 0;
  }
  const bool overlong = lead == 0xF0 && byte(1) < 0x90;
  const bool too_large = lead == 0xF4 && byte(1) >= 0x90;
  return !overlong && !too_large && continues(2) && continues(3) ? 4 : 0;
}

// Bytes at the end of `text` that may be the beginning of a character.
size_t unfinished_bytes(const std::string& text) {
  for (size_t back = 1; back <= 3 && back <= text.size(); ++back) {
    const auto byte = static_cast<unsigned char>(text[text.size() - back]);
    if (byte < 0x80) return 0;
    if (byte < 0xC0) continue;  // a continuation: its lead byte is before it
    const size_t length = byte >= 0xF8 ? 1 : byte >= 0xF0 ? 4 : byte >= 0xE0 ? 3 : 2;
    return length > back ? back : 0;
  }
  return 0;
}

}  // namespace

size_t find_invalid_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    uint64_t eight = 0;
    if (at + sizeof(eight) <= text.size()) {
      std::memcpy(&eight, text.data() + at, sizeof(eight));
      if ((eight & 0x8080808080808080u) == 0) {
        at += sizeof(eight);
        continue;
      }
    }
    const size_t length = character_bytes(text, at);
    if (length == 0) return at;
    at += length;
  }
  return std::string_view::npos;
}

uint32_t next_code(std::string_view& text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const uint32_t lead = byte(0);
  if (lead < 0x80) {
    text.remove_prefix(1);
    return lead;
  }
  const size_t size = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  uint32_t code = lead & (0xFFu >> (size + 1));
  for (size_t i = 1; i < size; ++i) code = (code << 6) | (byte(i) & 0x3Fu);
  text.remove_prefix(size);
  return code;
}

void append_utf8(std::string& text, uint32_t code) {
  if (code < 0x80) {
    text.push_back(static_cast<char>(code));
    return;
  }
  const size_t size = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
  const uint32_t mark = (0xF00u >> size) & 0xFFu;
  text.push_back(static_cast<char>(mark | (code >> (6 * (size - 1)))));
  for (size_t i = size - 1; i > 0; --i) {
    text.push_back(static_cast<char>(0x80 | ((code >> (6 * (i - 1))) & 0x3F)));
  }
}

std::string Utf8Stream::push(std::string_view bytes) {
  pending_ += bytes;
  const size_t keep = unfinished_bytes(pending_);
  std::string complete = pending_.substr(0, pending_.size() - keep);
  pending_.erase(0, complete.size());
  return complete;
}

std::string Utf8Stream::finish() { return std::move(pending_); }

}  // namespace dsmoe
