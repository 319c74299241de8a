#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "formats/special_tokens.h"

namespace dsmoe {

/// Finds added tokens in a text, as the library tokenizers does: from the left, of several that
/// begin at one place the longest, with the white space that lstrip and rstrip take. Tokens that
/// are not normalized are found first, in the whole text; the others in what lies between them.
/// Source: huggingface/tokenizers, tokenizer/added_vocabulary.rs.
class AddedTokens {
 public:
  /// Tokens that are normalized, or those that are not.
  enum class Pass { kRaw, kNormalized };
  /// A token with what it takes from the text, or a text between tokens, which is never empty.
  struct Part {
    std::string_view text;
    int32_t id = -1;  // of the token; -1: a text
  };

  AddedTokens() = default;
  explicit AddedTokens(std::vector<AddedToken> tokens);

  bool empty() const { return tokens_.empty(); }
  bool has_normalized() const;
  /// True if some token looks at the characters beside it: lstrip, rstrip, single_word.
  bool looks_around() const { return looks_around_; }
  /// The first place where a token may begin that more text would complete: the tokens that end
  /// before it are certain.
  size_t certain_end(std::string_view text) const;
  /// The text in order, cut at the tokens of one pass.
  std::vector<Part> split(std::string_view text, Pass pass) const;
  /// The same at the tokens of both, for a tokenizer without a normalizer.
  std::vector<Part> split(std::string_view text) const;
  /// True if text[0, at) and what follows, whatever it is, hold the same tokens apart as together.
  bool can_cut(std::string_view text, size_t at) const;

 private:
  const AddedToken* longest_at(std::string_view text, size_t at, Pass pass) const;

  std::vector<AddedToken> tokens_;                   // longest first
  std::array<std::vector<size_t>, 256> by_first_{};  // indices into tokens_, by first byte
  size_t longest_ = 0;                               // bytes
  bool looks_around_ = false;                        // any lstrip, rstrip or single_word
};

}  // namespace dsmoe
