#pragma once

#include <cstddef>
#include <cstdint>

namespace dsmoe {

/// Tables of Unicode as Hugging Face's tokenizers have them, made by
/// scripts/make_unicode_tables.py, so that no id depends on the version of an installed library.

struct CodeRange {
  uint32_t first = 0;
  uint32_t last = 0;
};

/// A canonical decomposition into one or two characters (second is 0 for one); not of Hangul.
struct Decomposition {
  uint32_t code = 0;
  uint32_t first = 0;
  uint32_t second = 0;
  uint32_t composes = 0;  ///< 1 if NFC joins the two again
};

/// Where a general category begins: code << 5 | index into kCategoryNames; ascending.
extern const uint32_t kGeneralCategories[];
extern const size_t kGeneralCategoriesSize;
constexpr const char* kCategoryNames[] = {
    "Lu", "Ll", "Lt", "Lm", "Lo", "Mn", "Mc", "Me", "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe",
    "Pi", "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Cs", "Co", "Cn"};

extern const CodeRange kDigits[];  ///< of the pre-tokenizer Digits
extern const size_t kDigitsSize;
extern const CodeRange kPunctuation[];  ///< of the pre-tokenizer Punctuation
extern const size_t kPunctuationSize;
extern const CodeRange kHan[];
extern const size_t kHanSize;
extern const CodeRange kHiragana[];
extern const size_t kHiraganaSize;
extern const CodeRange kKatakana[];
extern const size_t kKatakanaSize;
extern const CodeRange kHangul[];
extern const size_t kHangulSize;

/// Where a canonical combining class begins: code << 8 | class; ascending.
extern const uint32_t kCombiningClasses[];
extern const size_t kCombiningClassesSize;
/// Ascending by code.
extern const Decomposition kDecompositions[];
extern const size_t kDecompositionsSize;

}  // namespace dsmoe
