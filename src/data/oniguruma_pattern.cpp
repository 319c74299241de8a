#include "data/oniguruma_pattern.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>
#include <string_view>
#include <utility>

#include "common/error.h"
#include "data/utf8.h"

namespace dsmoe {
namespace {

constexpr size_t kMaxDepth = 64;
constexpr size_t kMaxSets = 128;
constexpr size_t kMaxRanges = 1 << 15;  // limit over all sets, which bounds the memory
constexpr std::string_view kSpecial = "\\^$.|?*+()[]{}";
// Under (?i) Oniguruma matches each of these pairs with one ligature or sharp s as well.
constexpr std::string_view kJoinedPairs[] = {"ss", "ff", "fi", "fl", "st"};

bool is_letter(uint32_t code) { return (code | 0x20) >= 'a' && (code | 0x20) <= 'z'; }
bool is_digit(uint32_t code) { return code >= '0' && code <= '9'; }

// Both cases of the ASCII letters, and the other characters that fold to one of them.
CharacterSet with_cases(const CharacterSet& set) {
  CharacterSet all = set;
  for (uint32_t letter = 'a'; letter <= 'z'; ++letter) {
    if (!set.contains(letter) && !set.contains(letter - 0x20)) continue;
    all = all | CharacterSet({{letter, letter}, {letter - 0x20, letter - 0x20}});
    if (letter == 's') all = all | CharacterSet::of(0x17F, 0x17F);
    if (letter == 'k') all = all | CharacterSet::of(0x212A, 0x212A);
  }
  return all;
}

class Parser {
 public:
  Parser(const std::string& expression, const std::string& source_name)
      : rest_(expression), expression_(expression), source_(source_name) {}

  OnigurumaPattern parse() {
    if (take("(?i)")) ignores_case_ = true;
    parse_alternatives();
    if (!rest_.empty()) fail("')' without '('");
    return std::move(pattern_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(
        fmt::format("{}: pattern: expected classes, groups and quantifiers, got {} before "
                    "offset {}",
                    source_,
                    what,
                    expression_.size() - rest_.size()));
  }
  bool take(std::string_view text) {
    if (!rest_.starts_with(text)) return false;
    rest_.remove_prefix(text.size());
    return true;
  }
  uint32_t take_character() {
    if (rest_.empty()) fail("an end");
    return next_code(rest_);
  }
  void add(std::string syntax) { pattern_.items.push_back({std::move(syntax), -1}); }
  void add(CharacterSet set) {
    if (ignores_case_) set = with_cases(set);
    auto& sets = pattern_.sets;
    const auto found = std::find(sets.begin(), sets.end(), set);
    pattern_.items.push_back({"", static_cast<int>(found - sets.begin())});
    if (found != sets.end()) return;
    n_ranges_ += set.ranges().size();
    if (sets.size() == kMaxSets || n_ranges_ > kMaxRanges) fail("too many classes");
    sets.push_back(std::move(set));
  }

  void parse_alternatives() {
    if (++depth_ > kMaxDepth) fail("a depth above 64");
    do {
      parse_sequence();
    } while (take("|") && (add("|"), true));
    --depth_;
  }

  void parse_sequence() {
    bool consumed = false;  // a character, on every way here
    uint32_t last_literal = 0;
    while (!rest_.empty() && rest_[0] != '|' && rest_[0] != ')') {
      const size_t begin = pattern_.items.size();
      const uint32_t literal = parse_atom(consumed);
      if (ignores_case_ && literal != 0 && last_literal != 0) check_pair(last_literal, literal);
      const bool is_set = begin < pattern_.items.size() && pattern_.items[begin].set >= 0;
      const auto quantified = parse_quantifiers(begin);
      consumed = consumed || (is_set && quantified.at_least_once);
      last_literal = quantified.is_plain ? literal : 0;
    }
  }

  void check_pair(uint32_t first, uint32_t second) const {
    const std::string pair{static_cast<char>(first | 0x20), static_cast<char>(second | 0x20)};
    for (const auto joined : kJoinedPairs) {
      if (pair == joined) fail(fmt::format("(?i) before '{}'", pair));
    }
  }

  // Adds an atom; returns its character if it is one.
  uint32_t parse_atom(bool consumed) {
    if (rest_[0] == '(') return parse_group(), 0;
    if (rest_[0] == '[') return add(parse_class()), 0;
    if (take(".")) return add(CharacterSet::of('\n', '\n').complement()), 0;
    if (take("^")) {
      pattern_.looks_back = true;
      return add_line_begin(), 0;
    }
    if (take("$")) {
      pattern_.looks_back = pattern_.looks_back || !consumed;
      return add_line_end(), 0;
    }
    if (take("\\A")) {
      pattern_.looks_back = true;
      return add("\\A"), 0;
    }
    if (take("\\z")) return add("\\z"), 0;
    if (rest_[0] == '\\') {
      const auto escape = parse_escape();
      add(escape.set);
      return escape.code;
    }
    if (rest_[0] != '{' && rest_[0] != ']' && kSpecial.find(rest_[0]) != kSpecial.npos) {
      fail(fmt::format("'{}'", rest_[0]));
    }
    const uint32_t code = take_character();
    if (ignores_case_ && code >= 0x80) fail("a character outside ASCII under (?i)");
    add(CharacterSet::of(code, code));
    return code;
  }

  // Oniguruma's line ends: after a last line feed there is no further line.
  void add_line_begin() {
    add("(?:\\A|(?<=");
    add(CharacterSet::of('\n', '\n'));
    add(")(?!\\z))");
  }
  void add_line_end() {
    add("(?:(?=");
    add(CharacterSet::of('\n', '\n'));
    add(")|\\z(?<!");
    add(CharacterSet::of('\n', '\n'));
    add("))");
  }

  void parse_group() {
    const bool outer = ignores_case_;
    if (take("(?i:")) {
      ignores_case_ = true;
      add("(?:");
    } else if (take("(?-i:")) {
      ignores_case_ = false;
      add("(?:");
    } else if (take("(?<=") || take("(?<!")) {
      pattern_.looks_back = true;
      add(expression_.substr(expression_.size() - rest_.size() - 4, 4));
    } else if (take("(?:") || take("(?=") || take("(?!") || take("(?>")) {
      add(expression_.substr(expression_.size() - rest_.size() - 3, 3));
    } else if (rest_.starts_with("(?") || rest_.starts_with("(*")) {
      fail(fmt::format("'{}'", rest_.substr(0, 3)));
    } else {
      take("(");
      add("(?:");
    }
    parse_alternatives();
    if (!take(")")) fail("'(' without ')'");
    add(")");
    ignores_case_ = outer;
  }

  struct Quantified {
    bool is_plain = true;  // nothing follows the atom
    bool at_least_once = true;
  };
  // Parses the quantifiers of the atom whose items begin at `begin`. A second quantifier repeats
  // the first.
  Quantified parse_quantifiers(size_t begin) {
    Quantified result;
    for (;; result.is_plain = false) {
      std::string syntax;
      bool is_interval = false;
      if (!rest_.empty() && std::string_view("*+?").find(rest_[0]) != std::string_view::npos) {
        syntax = rest_[0];
        rest_.remove_prefix(1);
      } else if (const auto interval = parse_interval()) {
        syntax = *interval;
        is_interval = true;
      } else {
        return result;
      }
      if (!result.is_plain) {
        pattern_.items.insert(pattern_.items.begin() + static_cast<std::ptrdiff_t>(begin),
                              OnigurumaPattern::Item{"(?:", -1});
        add(")");
      }
      const bool is_fixed = is_interval && syntax.find(',') == syntax.npos;
      if (!is_fixed && take("?"))
        syntax += '?';
      else if (!is_interval && take("+"))
        syntax += '+';
      add(syntax);
      if (syntax[0] != '+' && (!is_interval || syntax[1] == '0')) result.at_least_once = false;
    }
  }

  // {n}, {n,}, {n,m} or {,m}, as PCRE2 writes them; anything else is characters.
  std::optional<std::string> parse_interval() {
    const size_t end = rest_.find('}');
    if (!rest_.starts_with("{") || end == rest_.npos) return std::nullopt;
    std::string inner(rest_.substr(1, end - 1));
    const size_t comma = inner.find(',');
    const auto is_number = [](const std::string& text) {
      return !text.empty() && text.size() <= 4 && text.find_first_not_of("0123456789") == text.npos;
    };
    const bool has_first = is_number(inner.substr(0, comma));
    const bool has_second = comma != inner.npos && is_number(inner.substr(comma + 1));
    if (comma == 0 && has_second)
      inner.insert(inner.begin(), '0');
    else if (!has_first || (comma != inner.npos && !has_second && comma + 1 != inner.size()))
      return std::nullopt;
    rest_.remove_prefix(end + 1);
    return "{" + inner + "}";
  }

  struct Escape {
    CharacterSet set;
    uint32_t code = 0;  // where it is one character
  };
  Escape parse_escape() {
    take("\\");
    if (rest_.empty()) fail("'\\' at the end");
    const uint32_t letter = take_character();
    const auto one = [](uint32_t code) { return Escape{CharacterSet::of(code, code), code}; };
    switch (letter) {
      case 'n':
        return one('\n');
      case 'r':
        return one('\r');
      case 't':
        return one('\t');
      case 'f':
        return one('\f');
      case 'v':
        return one('\v');
      case 'a':
        return one('\a');
      case 'e':
        return one(0x1B);
      case 's':
        return {CharacterSet::white_space()};
      case 'S':
        return {CharacterSet::white_space().complement()};
      case 'd':
        return {property("Nd")};
      case 'D':
        return {property("Nd").complement()};
      case 'p':
      case 'P':
        return {parse_property(letter == 'P')};
      case 'x':
      case 'u':
        return one(parse_hexadecimal(letter == 'u'));
      default:
        if (is_letter(letter) || is_digit(letter) || letter >= 0x80) {
          fail(fmt::format("'\\{}'", letter < 0x80 ? static_cast<char>(letter) : '?'));
        }
        return one(letter);
    }
  }

  CharacterSet property(std::string_view name) const {
    if (ignores_case_) fail(fmt::format("property '{}' under (?i)", name));
    const auto set = CharacterSet::property(name);
    if (!set) fail(fmt::format("property '{}'", name));
    return *set;
  }

  CharacterSet parse_property(bool negated) {
    const size_t end = rest_.find('}');
    if (!rest_.starts_with("{") || end == rest_.npos) fail("'\\p' without '{}'");
    auto name = rest_.substr(1, end - 1);
    const bool inverted = name.starts_with("^");
    if (inverted) name.remove_prefix(1);
    const auto set = property(name);
    rest_.remove_prefix(end + 1);
    return negated != inverted ? set.complement() : set;
  }

  uint32_t parse_hexadecimal(bool is_long) {
    const bool braced = take("{");
    const size_t size = braced ? std::min(rest_.find('}'), size_t{8}) : is_long ? 4 : 2;
    uint32_t code = 0;
    const auto digits = rest_.substr(0, size);
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), code, 16);
    if (digits.size() < size || size == 0 || parsed.ptr != digits.data() + digits.size() ||
        code > 0x10FFFF || (ignores_case_ && code >= 0x80)) {
      fail("a code point");
    }
    rest_.remove_prefix(size);
    if (braced && !take("}")) fail("a code point");
    return code;
  }

  // [...]: characters, ranges, classes in classes, && between sets.
  CharacterSet parse_class() {
    if (++depth_ > kMaxDepth) fail("a depth above 64");
    take("[");
    const bool negated = take("^");
    if (rest_.starts_with("]")) fail("an empty class");
    CharacterSet set = parse_union();
    while (take("&&")) set = set & parse_union();
    if (!take("]")) fail("'[' without ']'");
    --depth_;
    if (ignores_case_) set = with_cases(set);
    return negated ? set.complement() : set;
  }

  CharacterSet parse_union() {
    CharacterSet set;
    while (!rest_.empty() && rest_[0] != ']' && !rest_.starts_with("&&")) {
      if (rest_.starts_with("[:")) fail("'[:'");
      if (rest_[0] == '[') {
        set = set | parse_class();
        continue;
      }
      const auto first = parse_member();
      const bool is_range = first.code != kNoCode && rest_.size() > 1 && rest_[0] == '-' &&
                            rest_[1] != ']' && rest_[1] != '[';
      if (!is_range) {
        set = set | first.set;
        continue;
      }
      take("-");
      const auto last = parse_member();
      if (last.code == kNoCode || last.code < first.code) fail("a range of characters");
      if (ignores_case_ && last.code >= 0x80) fail("a character outside ASCII under (?i)");
      set = set | CharacterSet::of(first.code, last.code);
    }
    return set;
  }

  // A character or an escape of a class.
  static constexpr uint32_t kNoCode = 0xFFFFFFFF;
  Escape parse_member() {
    if (rest_.starts_with("\\")) {
      auto escape = parse_escape();
      if (escape.code == 0 && escape.set != CharacterSet::of(0, 0)) escape.code = kNoCode;
      return escape;
    }
    const uint32_t code = take_character();
    if (ignores_case_ && code >= 0x80) fail("a character outside ASCII under (?i)");
    return {CharacterSet::of(code, code), code};
  }

  std::string_view rest_;
  const std::string& expression_;
  const std::string& source_;
  OnigurumaPattern pattern_;
  bool ignores_case_ = false;
  size_t depth_ = 0;
  size_t n_ranges_ = 0;
};

}  // namespace

OnigurumaPattern parse_oniguruma(const std::string& expression, const std::string& source_name) {
  if (const size_t bad = find_invalid_utf8(expression); bad != std::string::npos) {
    throw Error(fmt::format("{}: pattern: expected UTF-8 at offset {}", source_name, bad));
  }
  return Parser(expression, source_name).parse();
}

}  // namespace dsmoe
