#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "data/tokenizer.h"

namespace dsmoe {

/// Decodes a growing list of ids: the bytes that each id adds to Tokenizer::decode of the list.
///
/// An id decodes otherwise at the beginning of a text (SentencePiece drops a leading blank) than
/// after any byte of it. A few ids that give a byte stand for all that came before: each further
/// one costs a decoding of these and itself, however long the text is.
class IncrementalDecoder {
 public:
  /// The tokenizer outlives this. ids: the beginning of the list.
  IncrementalDecoder(const Tokenizer& tokenizer, std::span<const int32_t> ids);

  /// Appends an id; returns the bytes it adds, not always whole UTF-8 characters.
  std::string push(int32_t id);

 private:
  const Tokenizer* tokenizer_;
  std::vector<int32_t> window_;  // decodes to at least a byte, or is the whole list
  size_t n_window_bytes_ = 0;
};

}  // namespace dsmoe
