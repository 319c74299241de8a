#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "data/tokenizer.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace dsmoe {

enum class SentencePieceKind { kBpe, kUnigram, kChars };

/// A SentencePiece model; decoding never loses the dummy leading blank of a piece in the middle of
/// a text.
class SentencePieceTokenizer final : public Tokenizer {
 public:
  /// From the bytes of a `.model` file. Throws Error naming source_name if they are none.
  SentencePieceTokenizer(std::string model_bytes, const std::string& source_name);
  ~SentencePieceTokenizer() override;

  std::vector<int32_t> encode(std::string_view text) const override;
  std::string decode(const std::vector<int32_t>& ids) const override;
  int64_t vocab_size() const override;
  std::optional<int32_t> bos_id() const override;
  std::optional<int32_t> eos_id() const override;
  std::string fingerprint() const override;

  const std::string& model_bytes() const { return model_bytes_; }

 private:
  std::string model_bytes_;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
};

/// Trains a model on the given text files, deterministically; byte fallback makes every text
/// encodable (not for kChars). Returns the bytes of the `.model` file. Throws Error if the
/// vocabulary size is outside what the text allows.
std::string train_sentencepiece(const std::vector<std::string>& paths,
                                SentencePieceKind kind,
                                int64_t vocab_size);

}  // namespace dsmoe
