#pragma once

#include <string>
#include <vector>

#include "data/character_set.h"

namespace dsmoe {

/// A parsed regular expression in Oniguruma's syntax, which Hugging Face's tokenizers use:
/// characters and classes are sets of code points, the rest is syntax that PCRE2 reads alike.
struct OnigurumaPattern {
  struct Item {
    std::string syntax;  // of PCRE2, where set < 0
    int set = -1;        // index into sets
  };
  std::vector<Item> items;
  std::vector<CharacterSet> sets;
  bool looks_back = false;  ///< a match depends on the text before it
};

/// Parses an expression. Throws Error naming source_name and the unsupported construct: `\b`, `\w`,
/// back references, options other than `(?i:`, properties under `(?i:`, POSIX brackets, properties
/// other than general categories and Han, Hiragana, Katakana, Hangul.
OnigurumaPattern parse_oniguruma(const std::string& expression, const std::string& source_name);

}  // namespace dsmoe
