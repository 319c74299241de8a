#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace dsmoe {

/// Bytes of a text, [begin, end).
struct TextSpan {
  size_t begin = 0;
  size_t end = 0;
};

/// A regular expression of a pre-tokenizer, with the same matches as Oniguruma.
///
/// Characters that the expression does not distinguish become one symbol of a byte, and PCRE2
/// matches the symbols. So classes are those of data/unicode_tables.h with any installed PCRE2, and
/// a class costs one look-up.
class PiecePattern {
 public:
  using OnMatch = std::function<void(TextSpan)>;

  /// Throws Error naming source_name for an unsupported expression.
  PiecePattern(const std::string& expression, const std::string& source_name);
  ~PiecePattern();
  PiecePattern(const PiecePattern&) = delete;
  PiecePattern& operator=(const PiecePattern&) = delete;

  /// The matches in a valid UTF-8 text from left to right, empty ones included.
  void find(std::string_view text, const OnMatch& on_match) const;
  /// Reports the matches in a prefix of a text that do not depend on the rest. Returns the end of
  /// the certain part: up to there nothing else matches.
  size_t find_certain(std::string_view text, const OnMatch& on_match) const;
  /// Returns whether the matches after the end of one do not depend on the text before it.
  bool restarts() const { return restarts_; }

 private:
  struct Code;

  uint8_t symbol(uint32_t code) const { return blocks_[block_of_[code >> 8]][code & 0xFF]; }
  std::string symbols_of(std::string_view text) const;
  size_t run(std::string_view text, bool open, const OnMatch& on_match) const;
  int match(std::string_view symbols, size_t from, bool open, void* match_data) const;

  std::unique_ptr<Code> code_;
  bool restarts_ = false;
  std::vector<uint16_t> block_of_;                // [0x1100] index into blocks_
  std::vector<std::array<uint8_t, 256>> blocks_;  // symbols by the low byte of a code point
};

}  // namespace dsmoe
