#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace dsmoe {

/// The character map of a SentencePiece normalizer: at each place of a text, from the left, the
/// longest key is replaced; a character without a key stays. The keys are a double-array trie over
/// bytes.
class SentencePieceCharsmap {
 public:
  struct Match {
    size_t size_bytes = 0;  ///< of the key; 0: no key begins here
    std::string_view replacement;
  };

  SentencePieceCharsmap() = default;  ///< no keys
  /// From the map's bytes, which inspect_sentencepiece_model has accepted and which must outlive
  /// this.
  explicit SentencePieceCharsmap(std::string_view bytes);

  /// The longest key that `text` begins with.
  Match longest(std::string_view text) const;
  /// Returns whether no key that begins before `at` reaches over it: then the replacement of the
  /// text before it does not depend on the text after. at is below text.size().
  bool can_cut(std::string_view text, size_t at) const;
  /// Returns whether a key ends at `at`, so that the character before it changes.
  bool ends_key(std::string_view text, size_t at) const;

 private:
  // Calls on_key(size_bytes, position of the replacement) for each key that `text` begins with.
  template <class OnKey>
  size_t walk(std::string_view text, const OnKey& on_key) const;

  std::vector<uint32_t> units_;
  std::string_view replacements_;  // each ends with a zero byte
};

}  // namespace dsmoe
