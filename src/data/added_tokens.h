#pragma once

#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "formats/special_tokens.h"

namespace dsmoe {

/// Finds added tokens in a text, as the library tokenizers does: from left to right, the longest of
/// those that begin at one place, with the white space that lstrip and rstrip take. Finds tokens
/// that are not normalized first, in the whole text, then the others in the text between them.
/// Source: huggingface/tokenizers, tokenizer/added_vocabulary.rs.
class AddedTokens {
 public:
  /// Tokens that are normalized, or those that are not.
  enum class Pass { kRaw, kNormalized };
  /// A token with the white space that it takes, or a text between tokens, which is never empty.
  struct Part {
    std::string_view text;
    int32_t id = -1;  // id of the token; -1: a text
  };

  AddedTokens() = default;
  explicit AddedTokens(std::vector<AddedToken> tokens);

  bool empty() const { return tokens_.empty(); }
  bool has_normalized() const;
  /// Returns whether some token depends on the characters beside it: lstrip, rstrip, single_word.
  bool looks_around() const { return looks_around_; }
  /// Returns the first place where a token may begin that more text would complete: tokens that end
  /// before it are certain.
  size_t certain_end(std::string_view text) const;
  /// Returns the text in order, cut at the tokens of one pass.
  std::vector<Part> split(std::string_view text, Pass pass) const;
  /// The same at the tokens of both passes, for a tokenizer without a normalizer.
  std::vector<Part> split(std::string_view text) const;
  /// Returns whether text[0, at) and any text after it hold the same tokens apart as together.
  bool can_cut(std::string_view text, size_t at) const;

 private:
  const AddedToken* longest_at(std::string_view text, size_t at, Pass pass) const;

  std::vector<AddedToken> tokens_;                   // longest first
  std::array<std::vector<size_t>, 256> by_first_{};  // indices into tokens_, by first byte
  size_t longest_ = 0;                               // bytes
  bool looks_around_ = false;                        // any lstrip, rstrip or single_word
};

}  // namespace dsmoe
