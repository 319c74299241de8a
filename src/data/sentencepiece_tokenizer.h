#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/tokenizer.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace dsmoe {

enum class SentencePieceKind { kBpe, kUnigram, kChars };

/// A SentencePiece model; decoding never loses the dummy leading blank of a piece in the middle of
/// a text. A model that keeps every character (no dummy prefix, no normalization) encodes each line
/// of a text for itself, which keeps long texts exact and fast.
/// Limit: SentencePiece writes blanks as U+2581, so that character itself decodes as a blank.
class SentencePieceTokenizer final : public Tokenizer {
 public:
  /// From the bytes of a `.model` file. Throws Error naming source_name if they are none.
  SentencePieceTokenizer(std::string model_bytes, const std::string& source_name);
  ~SentencePieceTokenizer() override;

  /// Throws Error if the text is not UTF-8.
  std::vector<int32_t> encode(std::string_view text) const override;
  /// Bytes are given as they are, also where they are no UTF-8.
  std::string decode(const std::vector<int32_t>& ids) const override;
  int64_t vocab_size() const override;
  std::optional<int32_t> bos_id() const override;
  std::optional<int32_t> eos_id() const override;
  std::string fingerprint() const override { return fingerprint_; }
  bool encodes_lines_apart() const override { return encodes_lines_apart_; }

  const std::string& model_bytes() const { return model_bytes_; }

 private:
  // What an id adds to a text.
  struct Surface {
    std::string text;
    bool begins_with_mark = false;  // a blank that the model may have put there
  };
  void fill_surfaces(const std::string& source_name);

  std::string model_bytes_;
  std::string fingerprint_;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
  std::vector<Surface> surfaces_;  // [vocab_size]
  bool drops_leading_blank_ = false;
  bool drops_leading_blanks_ = false;
  bool encodes_lines_apart_ = false;
  bool drops_first_blank_ = false;  // a blank was put before the text, and goes again
};

/// Trains a model on the given text files, deterministically; byte fallback makes every text
/// encodable (not for kChars, which takes every character of the text). Line ends are a symbol of
/// their own, blanks are kept as they are. Returns the bytes of the `.model` file. Throws Error if
/// the vocabulary size is outside what the text allows.
std::string train_sentencepiece(const std::vector<std::string>& paths,
                                SentencePieceKind kind,
                                int64_t vocab_size);

}  // namespace dsmoe
