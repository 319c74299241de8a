#include "data/character_set.h"

#include <algorithm>

namespace dsmoe {
namespace {

constexpr uint32_t kLastCode = 0x10FFFF;
constexpr uint32_t kCategoryBits = 5;
// Names that formats/pre_tokenizer_json.cpp writes for the pre-tokenizers Digits and Punctuation.
constexpr std::string_view kDigitsProperty = "tokenizers:Digits";
constexpr std::string_view kPunctuationProperty = "tokenizers:Punctuation";

// Returns the union of all general categories with this beginning of the name.
std::vector<CodeRange> in_categories(std::string_view name) {
  std::vector<CodeRange> ranges;
  for (size_t i = 0; i < kGeneralCategoriesSize; ++i) {
    const uint32_t entry = kGeneralCategories[i];
    const std::string_view category = kCategoryNames[entry & ((1u << kCategoryBits) - 1)];
    if (!category.starts_with(name)) continue;
    const bool is_last = i + 1 == kGeneralCategoriesSize;
    const uint32_t end = is_last ? kLastCode + 1 : kGeneralCategories[i + 1] >> kCategoryBits;
    ranges.push_back({entry >> kCategoryBits, end - 1});
  }
  return ranges;
}

}  // namespace

CharacterSet::CharacterSet(std::vector<CodeRange> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const CodeRange& a, const CodeRange& b) {
    return a.first < b.first;
  });
  for (const auto& range : ranges) {
    if (!ranges_.empty() && range.first <= ranges_.back().last + 1) {
      ranges_.back().last = std::max(ranges_.back().last, range.last);
    } else {
      ranges_.push_back(range);
    }
  }
}

CharacterSet CharacterSet::white_space() {
  return CharacterSet({{0x9, 0xD},
                       {0x20, 0x20},
                       {0x85, 0x85},
                       {0xA0, 0xA0},
                       {0x1680, 0x1680},
                       {0x2000, 0x200A},
                       {0x2028, 0x2029},
                       {0x202F, 0x202F},
                       {0x205F, 0x205F},
                       {0x3000, 0x3000}});
}

std::optional<CharacterSet> CharacterSet::property(std::string_view name) {
  if (name == "Han") return of({kHan, kHanSize});
  if (name == "Hiragana") return of({kHiragana, kHiraganaSize});
  if (name == "Katakana") return of({kKatakana, kKatakanaSize});
  if (name == "Hangul") return of({kHangul, kHangulSize});
  if (name == kDigitsProperty) return of({kDigits, kDigitsSize});
  if (name == kPunctuationProperty) return of({kPunctuation, kPunctuationSize});
  if (name.empty() || name.size() > 2) return std::nullopt;
  auto ranges = in_categories(name);
  if (ranges.empty()) return std::nullopt;
  return CharacterSet(std::move(ranges));
}

CharacterSet CharacterSet::operator|(const CharacterSet& other) const {
  auto both = ranges_;
  both.insert(both.end(), other.ranges_.begin(), other.ranges_.end());
  return CharacterSet(std::move(both));
}

CharacterSet CharacterSet::operator&(const CharacterSet& other) const {
  return (complement() | other.complement()).complement();
}

CharacterSet CharacterSet::complement() const {
  CharacterSet rest;
  uint32_t next = 0;
  for (const auto& range : ranges_) {
    if (range.first > next) rest.ranges_.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  if (next <= kLastCode) rest.ranges_.push_back({next, kLastCode});
  return rest;
}

bool CharacterSet::operator==(const CharacterSet& other) const {
  return std::equal(ranges_.begin(),
                    ranges_.end(),
                    other.ranges_.begin(),
                    other.ranges_.end(),
                    [](const CodeRange& a, const CodeRange& b) {
                      return a.first == b.first && a.last == b.last;
                    });
}

bool CharacterSet::contains(uint32_t code) const {
  const auto after = std::upper_bound(
      ranges_.begin(), ranges_.end(), code, [](uint32_t value, const CodeRange& range) {
        return value < range.first;
      });
  return after != ranges_.begin() && code <= std::prev(after)->last;
}

}  // namespace dsmoe
