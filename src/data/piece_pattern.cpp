#define PCRE2_CODE_UNIT_WIDTH 8
#include "data/piece_pattern.h"

#include <fmt/format.h>
#include <pcre2.h>

#include <algorithm>
#include <map>
#include <utility>

#include "common/error.h"
#include "data/oniguruma_pattern.h"
#include "data/utf8.h"

namespace dsmoe {
namespace {

constexpr uint32_t kCodePoints = 0x110000;
constexpr size_t kMaxSymbols = 256;

std::string pcre2_message(int code) {
  std::array<PCRE2_UCHAR, 256> text{};
  pcre2_get_error_message(code, text.data(), text.size());
  return reinterpret_cast<const char*>(text.data());
}

// Cuts all code points into ranges that no set divides, and numbers the kinds of membership.
class Partition {
 public:
  explicit Partition(const std::vector<CharacterSet>& sets) : symbols_of_set_(sets.size()) {
    std::vector<uint32_t> begins{0};
    for (const auto& set : sets) {
      for (const auto& range : set.ranges()) {
        begins.push_back(range.first);
        if (range.last + 1 < kCodePoints) begins.push_back(range.last + 1);
      }
    }
    std::sort(begins.begin(), begins.end());
    begins.erase(std::unique(begins.begin(), begins.end()), begins.end());
    std::map<std::vector<bool>, size_t> known;
    for (const uint32_t begin : begins) {
      std::vector<bool> members;
      for (const auto& set : sets) members.push_back(set.contains(begin));
      const auto [found, is_new] = known.emplace(members, known.size());
      ranges_.emplace_back(begin, found->second);
      if (!is_new) continue;
      for (size_t i = 0; i < sets.size(); ++i) {
        if (members[i]) symbols_of_set_[i].push_back(found->second);
      }
    }
    n_symbols_ = known.size();
  }

  size_t n_symbols() const { return n_symbols_; }
  // Begins of ranges and their symbols, ascending.
  const std::vector<std::pair<uint32_t, size_t>>& ranges() const { return ranges_; }
  // A class of PCRE2.
  std::string class_of(int set) const {
    const auto& symbols = symbols_of_set_[static_cast<size_t>(set)];
    if (symbols.empty()) return "(?!)";
    std::string text = "[";
    for (const size_t symbol : symbols) text += fmt::format("\\x{:02x}", symbol);
    return text + "]";
  }

 private:
  std::vector<std::vector<size_t>> symbols_of_set_;
  std::vector<std::pair<uint32_t, size_t>> ranges_;
  size_t n_symbols_ = 0;
};

}  // namespace

struct PiecePattern::Code {
  Code(const std::string& expression, const std::string& source_name) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()),
                         expression.size(),
                         0,
                         &error,
                         &offset,
                         nullptr);
    if (code == nullptr) {
      throw Error(fmt::format("{}: pattern: {}", source_name, pcre2_message(error)));
    }
    // Without it, matching is only slower.
    pcre2_jit_compile(code, PCRE2_JIT_COMPLETE | PCRE2_JIT_PARTIAL_HARD);
  }
  ~Code() { pcre2_code_free(code); }
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;

  bool matches_empty() const {
    uint32_t answer = 1;
    pcre2_pattern_info(code, PCRE2_INFO_MATCHEMPTY, &answer);
    return answer != 0;
  }

  pcre2_code* code = nullptr;
};

PiecePattern::PiecePattern(const std::string& expression, const std::string& source_name) {
  const auto parsed = parse_oniguruma(expression, source_name);
  const Partition partition(parsed.sets);
  if (partition.n_symbols() > kMaxSymbols) {
    throw Error(fmt::format("{}: pattern: expected at most {} kinds of characters, got {}",
                            source_name,
                            kMaxSymbols,
                            partition.n_symbols()));
  }
  std::string syntax;
  for (const auto& item : parsed.items) {
    syntax += item.set < 0 ? item.syntax : partition.class_of(item.set);
  }
  code_ = std::make_unique<Code>(syntax, source_name);
  restarts_ = !parsed.looks_back && !code_->matches_empty();
  std::map<std::array<uint8_t, 256>, size_t> known;
  auto next = partition.ranges().begin();
  uint8_t current = 0;
  std::array<uint8_t, 256> block{};
  for (uint32_t code = 0; code < kCodePoints; ++code) {
    if (next != partition.ranges().end() && next->first == code) {
      current = static_cast<uint8_t>(next++->second);
    }
    block[code & 0xFF] = current;
    if ((code & 0xFF) != 0xFF) continue;
    const auto [found, is_new] = known.emplace(block, blocks_.size());
    if (is_new) blocks_.push_back(block);
    block_of_.push_back(static_cast<uint16_t>(found->second));
  }
}

PiecePattern::~PiecePattern() = default;

std::string PiecePattern::symbols_of(std::string_view text) const {
  std::string symbols;
  symbols.reserve(text.size());
  while (!text.empty()) symbols.push_back(static_cast<char>(symbol(next_code(text))));
  return symbols;
}

int PiecePattern::match(std::string_view symbols, size_t from, bool open, void* data) const {
  const auto subject = reinterpret_cast<PCRE2_SPTR>(symbols.data());
  auto* const match_data = static_cast<pcre2_match_data*>(data);
  const uint32_t options = open ? PCRE2_PARTIAL_HARD : 0;
  int result =
      pcre2_match(code_->code, subject, symbols.size(), from, options, match_data, nullptr);
  if (result == PCRE2_ERROR_JIT_STACKLIMIT) {
    result = pcre2_match(
        code_->code, subject, symbols.size(), from, options | PCRE2_NO_JIT, match_data, nullptr);
  }
  if (result < 0 && result != PCRE2_ERROR_NOMATCH && result != PCRE2_ERROR_PARTIAL) {
    throw Error(fmt::format("hf-bpe: the tokenizer's pattern failed: {}", pcre2_message(result)));
  }
  return result;
}

// Skips an empty match where the last match ended, as Oniguruma's iterator does.
size_t PiecePattern::run(std::string_view text, bool open, const OnMatch& on_match) const {
  const auto symbols = symbols_of(text);
  const std::unique_ptr<pcre2_match_data, void (*)(pcre2_match_data*)> match_data(
      pcre2_match_data_create(1, nullptr), pcre2_match_data_free);
  size_t n_symbols = 0;  // before the byte `at`
  size_t at = 0;
  const auto byte_of = [&](size_t position) {
    for (; n_symbols < position; ++n_symbols) {
      do ++at;
      while (at < text.size() && !begins_character(text[at]));
    }
    return at;
  };
  size_t last_end = symbols.size() + 1;
  for (size_t from = 0; from <= symbols.size();) {
    const int result = match(symbols, from, open, match_data.get());
    if (result == PCRE2_ERROR_NOMATCH) break;
    const auto* offsets = pcre2_get_ovector_pointer(match_data.get());
    if (result == PCRE2_ERROR_PARTIAL) return byte_of(offsets[0]);
    if (offsets[1] == offsets[0] && offsets[0] == last_end) {
      ++from;
      continue;
    }
    const size_t begin = byte_of(offsets[0]);
    from = last_end = offsets[1];
    on_match({begin, byte_of(offsets[1])});
  }
  return text.size();
}

void PiecePattern::find(std::string_view text, const OnMatch& on_match) const {
  run(text, /*open=*/false, on_match);
}

size_t PiecePattern::find_certain(std::string_view text, const OnMatch& on_match) const {
  return run(text, /*open=*/true, on_match);
}

}  // namespace dsmoe
