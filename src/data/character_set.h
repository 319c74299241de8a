#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "data/unicode_tables.h"

namespace dsmoe {

/// A set of code points, as ascending ranges that do not touch.
class CharacterSet {
 public:
  CharacterSet() = default;
  explicit CharacterSet(std::vector<CodeRange> ranges);
  static CharacterSet of(uint32_t first, uint32_t last) { return CharacterSet({{first, last}}); }
  static CharacterSet of(std::span<const CodeRange> ranges) {
    return CharacterSet({ranges.begin(), ranges.end()});
  }
  /// Oniguruma's `\s`: White_Space.
  static CharacterSet white_space();
  /// Returns the set of a name inside `\p{}`: a general category (`Lu`), a group of them (`L`), one
  /// of four scripts, or the characters of a pre-tokenizer (`tokenizers:Digits`,
  /// `tokenizers:Punctuation`); nothing for another name.
  static std::optional<CharacterSet> property(std::string_view name);

  CharacterSet operator|(const CharacterSet& other) const;
  CharacterSet operator&(const CharacterSet& other) const;
  CharacterSet complement() const;
  bool operator==(const CharacterSet& other) const;
  bool contains(uint32_t code) const;
  const std::vector<CodeRange>& ranges() const { return ranges_; }

 private:
  std::vector<CodeRange> ranges_;
};

}  // namespace dsmoe
