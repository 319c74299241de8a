#include "data/nfc.h"

#include <algorithm>
#include <unordered_map>
#include <vector>

#include "data/unicode_tables.h"
#include "data/utf8.h"

namespace dsmoe {
namespace {

constexpr uint32_t kCodes = 0x110000;
// Code points below it are NFC and join nothing before them.
constexpr uint32_t kFirstChanging = 0x300;
// Syllables of Hangul are composed of a leading consonant, a vowel and an optional trailing
// consonant. Source: Unicode 16.0, section 3.12.
constexpr uint32_t kSyllable = 0xAC00;
constexpr uint32_t kLeading = 0x1100;
constexpr uint32_t kVowel = 0x1161;
constexpr uint32_t kTrailing = 0x11A7;
constexpr uint32_t kLeadings = 19;
constexpr uint32_t kVowels = 21;
constexpr uint32_t kTrailings = 28;

bool is_between(uint32_t code, uint32_t first, uint32_t count) {
  return code >= first && code < first + count;
}

const Decomposition* find_decomposition(uint32_t code) {
  const auto* const end = kDecompositions + kDecompositionsSize;
  const auto* const found = std::lower_bound(
      kDecompositions, end, code, [](const Decomposition& d, uint32_t c) { return d.code < c; });
  return found != end && found->code == code ? found : nullptr;
}

uint32_t combining_class(uint32_t code) {
  const auto* const after = std::upper_bound(
      kCombiningClasses, kCombiningClasses + kCombiningClassesSize, (code << 8) | 0xFF);
  return after == kCombiningClasses ? 0 : *(after - 1) & 0xFF;
}

uint64_t pair_of(uint32_t first, uint32_t second) { return (uint64_t{first} << 32) | second; }

const std::unordered_map<uint64_t, uint32_t>& compositions() {
  static const auto kOfPair = [] {
    std::unordered_map<uint64_t, uint32_t> of_pair;
    for (size_t i = 0; i < kDecompositionsSize; ++i) {
      const auto& d = kDecompositions[i];
      if (d.composes != 0) of_pair.emplace(pair_of(d.first, d.second), d.code);
    }
    return of_pair;
  }();
  return kOfPair;
}

// 0: they do not compose.
uint32_t compose(uint32_t first, uint32_t second) {
  if (is_between(first, kLeading, kLeadings) && is_between(second, kVowel, kVowels)) {
    return kSyllable + ((first - kLeading) * kVowels + second - kVowel) * kTrailings;
  }
  const bool is_open_syllable = is_between(first, kSyllable, kLeadings * kVowels * kTrailings) &&
                                (first - kSyllable) % kTrailings == 0;
  if (is_open_syllable && is_between(second, kTrailing + 1, kTrailings - 1)) {
    return first + second - kTrailing;
  }
  const auto found = compositions().find(pair_of(first, second));
  return found == compositions().end() ? 0 : found->second;
}

struct Mark {
  uint32_t code;
  uint32_t combining;
};

// Syllables of Hangul stay: they would only be composed again.
void decompose(uint32_t code, std::vector<Mark>& marks) {
  if (const auto* parts = find_decomposition(code)) {
    decompose(parts->first, marks);
    if (parts->second != 0) decompose(parts->second, marks);
    return;
  }
  marks.push_back({code, combining_class(code)});
}

void order(std::vector<Mark>& marks) {
  const auto is_starter = [](const Mark& mark) { return mark.combining == 0; };
  for (auto begin = marks.begin(); begin != marks.end();) {
    begin = std::find_if_not(begin, marks.end(), is_starter);
    const auto end = std::find_if(begin, marks.end(), is_starter);
    std::stable_sort(
        begin, end, [](const Mark& a, const Mark& b) { return a.combining < b.combining; });
    begin = end;
  }
}

// Joins each character with the last starter where nothing between them is in the way.
void recompose(std::vector<Mark>& marks) {
  constexpr size_t kNone = static_cast<size_t>(-1);
  size_t starter = kNone;
  size_t n_kept = 0;
  uint32_t last_class = 0;  // class of the last character kept after the starter
  for (const auto& mark : marks) {
    const bool is_adjacent = starter != kNone && starter + 1 == n_kept;
    const bool is_blocked = !is_adjacent && (last_class == 0 || last_class >= mark.combining);
    const uint32_t joined =
        starter == kNone || is_blocked ? 0 : compose(marks[starter].code, mark.code);
    if (joined != 0) {
      marks[starter].code = joined;
      continue;
    }
    if (mark.combining == 0) starter = n_kept;
    last_class = mark.combining;
    marks[n_kept++] = mark;
  }
  marks.resize(n_kept);
}

// By code point.
struct CharacterKinds {
  CharacterKinds() {
    for (size_t i = 0; i < kCombiningClassesSize; ++i) {
      const bool is_last = i + 1 == kCombiningClassesSize;
      if ((kCombiningClasses[i] & 0xFF) == 0 || is_last) continue;
      for (uint32_t code = kCombiningClasses[i] >> 8; code < kCombiningClasses[i + 1] >> 8; ++code)
        continues[code] = true;
    }
    for (const auto& [pair, composed] : compositions()) continues[pair & 0xFFFFFFFF] = true;
    for (uint32_t i = 0; i < kVowels; ++i) continues[kVowel + i] = true;
    for (uint32_t i = 1; i < kTrailings; ++i) continues[kTrailing + i] = true;
    for (size_t i = 0; i < kDecompositionsSize; ++i) {
      const uint32_t code = kDecompositions[i].code;
      decomposes[code] = code >= kFirstChanging;
      std::vector<Mark> marks;
      decompose(code, marks);
      if (marks[0].combining != 0 || continues[marks[0].code]) continues[code] = true;
    }
  }
  std::vector<bool> continues = std::vector<bool>(kCodes);   // may join the character before it
  std::vector<bool> decomposes = std::vector<bool>(kCodes);  // may change without neighbours
};

const CharacterKinds& character_kinds() {
  static const CharacterKinds kKinds;
  return kKinds;
}

void append_segment(std::string_view segment, std::string& text) {
  std::vector<Mark> marks;
  for (auto rest = segment; !rest.empty();) decompose(next_code(rest), marks);
  order(marks);
  recompose(marks);
  for (const auto& mark : marks) append_utf8(text, mark.code);
}

}  // namespace

bool begins_nfc_segment(uint32_t code) {
  return code < kFirstChanging || !character_kinds().continues[code];
}

std::string to_nfc(std::string_view text) {
  const auto& kinds = character_kinds();
  std::string result;
  result.reserve(text.size());
  for (auto rest = text; !rest.empty();) {
    const auto begin = rest;
    bool may_change = kinds.decomposes[next_code(rest)];
    while (!rest.empty()) {
      auto after = rest;
      if (begins_nfc_segment(next_code(after))) break;
      may_change = true;
      rest = after;
    }
    const auto segment = begin.substr(0, begin.size() - rest.size());
    if (may_change) {
      append_segment(segment, result);
    } else {
      result += segment;
    }
  }
  return result;
}

}  // namespace dsmoe
