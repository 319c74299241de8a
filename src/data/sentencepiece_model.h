#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "formats/llama2c_tokenizer.h"

namespace dsmoe {

/// Traits of a SentencePiece model file, read from its bytes: the library has no public way to
/// query them.
struct SentencePieceModelTraits {
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  std::string_view charsmap;  ///< of the normalizer, within the model's bytes; empty: none
  bool escape_whitespaces = true;
  bool whitespace_is_suffix = false;
  bool is_bpe = false;
  bool is_word = false;  ///< of whole words
  bool byte_fallback = false;
  bool has_piece_over_lines = false;  ///< a piece with a line feed and something else in it
  bool has_piece_over_words = false;  ///< a piece with a blank after something else
  bool has_blank_piece = false;       ///< a blank is a token, never an unknown character
  bool has_line_piece = false;        ///< a piece with a line feed, which may escape the normalizer
};

/// Reads the traits. Throws Error naming source_name for a model that the library would read out of
/// bounds: over-long pieces, a character map that points outside itself.
SentencePieceModelTraits inspect_sentencepiece_model(std::string_view model_bytes,
                                                     const std::string& source_name);

/// One piece of a model; blanks are U+2581 in its text.
struct SentencePiece {
  enum Type : uint32_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };
  std::string text;
  float score = 0;
  uint32_t type = kNormal;
};

/// Returns the pieces of a model that inspect_sentencepiece_model has accepted, by id.
std::vector<SentencePiece> read_sentencepiece_pieces(std::string_view model_bytes);

/// Returns the bytes of a `.model` file that encodes as llama2.c does with these tokens: BPE with
/// byte fallback, a blank before every text, blanks kept as they are.
std::string sentencepiece_model_from(const std::vector<Llama2cToken>& tokens);

}  // namespace dsmoe
