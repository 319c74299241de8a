#pragma once

#include <string>
#include <string_view>

namespace dsmoe {

/// What a SentencePiece model file says about itself, read from its bytes: the library has no
/// public way to ask.
struct SentencePieceModelTraits {
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool has_charsmap = false;  ///< a normalizer that rewrites characters
  bool escape_whitespaces = true;
  bool whitespace_is_suffix = false;
  bool is_bpe = false;
  bool byte_fallback = false;
  bool has_piece_over_lines = false;  ///< a piece with a line feed and something else in it
  bool has_piece_over_words = false;  ///< a piece with a blank after something else
};

/// Reads the traits and refuses what the library would read out of bounds: over-long pieces, a
/// character map that points outside itself. Throws Error naming source_name.
SentencePieceModelTraits inspect_sentencepiece_model(std::string_view model_bytes,
                                                     const std::string& source_name);

}  // namespace dsmoe
