#include "data/sentencepiece_charsmap.h"

#include <algorithm>
#include <cstring>

namespace dsmoe {
namespace {

// Keys are a few characters; the longest of nmt_nfkc has 18.
constexpr size_t kMaxKeyBytes = 256;

uint32_t offset_of(uint32_t unit) { return (unit >> 10) << ((unit & (1u << 9)) >> 6); }

}  // namespace

SentencePieceCharsmap::SentencePieceCharsmap(std::string_view bytes) {
  uint32_t trie_bytes = 0;
  std::memcpy(&trie_bytes, bytes.data(), sizeof(trie_bytes));
  units_.resize(trie_bytes / sizeof(uint32_t));
  std::memcpy(units_.data(), bytes.data() + sizeof(trie_bytes), trie_bytes);
  replacements_ = bytes.substr(sizeof(trie_bytes) + trie_bytes);
}

// Returns the bytes of `text` that begin some key. A unit's label holds its byte, and in a leaf,
// which no byte equals, the top bit.
template <class OnKey>
size_t SentencePieceCharsmap::walk(std::string_view text, const OnKey& on_key) const {
  if (units_.empty()) return 0;
  uint32_t at = offset_of(units_[0]);
  for (size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte == 0) return i;  // keys end with one
    at ^= byte;
    const uint32_t unit = units_[at];
    if ((unit & ((1u << 31) | 0xFF)) != byte) return i;
    at ^= offset_of(unit);
    if (((unit >> 8) & 1) != 0) on_key(i + 1, units_[at] & 0x7FFFFFFF);
  }
  return text.size();
}

SentencePieceCharsmap::Match SentencePieceCharsmap::longest(std::string_view text) const {
  Match match;
  walk(text, [&](size_t size_bytes, uint32_t position) {
    match = {size_bytes, replacements_.data() + position};
  });
  return match;
}

bool SentencePieceCharsmap::can_cut(std::string_view text, size_t at) const {
  for (size_t begin = at - std::min(at, kMaxKeyBytes); begin < at; ++begin) {
    const auto over = text.substr(begin, at + 1 - begin);
    if (walk(over, [](size_t, uint32_t) {}) == over.size()) return false;
  }
  return true;
}

bool SentencePieceCharsmap::ends_key(std::string_view text, size_t at) const {
  bool ends = false;
  for (size_t begin = at - std::min(at, kMaxKeyBytes); begin < at; ++begin) {
    walk(text.substr(begin, at - begin),
         [&](size_t size_bytes, uint32_t) { ends = ends || begin + size_bytes == at; });
  }
  return ends;
}

}  // namespace dsmoe
