#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "data/added_tokens.h"
#include "data/sentencepiece_charsmap.h"
#include "data/sentencepiece_model.h"
#include "data/text_reader.h"
#include "data/tokenizer.h"
#include "data/word_cache.h"

namespace sentencepiece {
class SentencePieceProcessor;
}

namespace dsmoe {

enum class SentencePieceKind { kBpe, kUnigram, kChars };

/// A SentencePiece model. Decoding keeps the dummy leading blank of a piece in the middle of a
/// text. A model without normalization encodes each line separately, which keeps long texts exact.
/// A BPE model without pieces across blanks encodes each word separately and caches the words: many
/// times faster, with the same ids. So does a model with a normalizer and no pieces across blanks;
/// its words end before the white space that the normalizer makes a blank. Limit: SentencePiece
/// writes blanks as U+2581, so that character itself decodes as a blank.
class SentencePieceTokenizer final : public Tokenizer {
 public:
  /// From the bytes of a `.model` file. Throws Error naming source_name for other bytes.
  SentencePieceTokenizer(std::string model_bytes, const std::string& source_name);
  /// The same with special tokens of files beside the model. Finds their added tokens in a text as
  /// it is spelled, before the model's normalizer; ids past the model's pieces extend the
  /// vocabulary. Throws Error for an id that leaves a gap of more ids than there are added tokens.
  SentencePieceTokenizer(std::string model_bytes,
                         const std::string& source_name,
                         SpecialTokens special);
  ~SentencePieceTokenizer() override;

  /// Throws Error if the text is not UTF-8.
  std::vector<int32_t> encode(std::string_view text) const override;
  /// Returns the bytes unchanged, even if they are not UTF-8.
  std::string decode(const std::vector<int32_t>& ids) const override;
  int64_t vocab_size() const override;
  bool has_token(int64_t id) const override;
  const SpecialTokens& special_tokens() const override { return special_; }
  std::string fingerprint() const override { return fingerprint_; }
  size_t divide(std::string_view text) const override;
  std::vector<int32_t> encode_rest(std::string_view text) const override;

  const std::string& model_bytes() const { return model_bytes_; }
  int64_t n_pieces() const;  ///< pieces of the model, without added tokens
  /// Returns the text of an added token, else the piece. Only for ids with a token.
  std::string token_name(int32_t id) const;

 private:
  // Text that an id adds.
  struct Surface {
    std::string text = {};
    bool begins_with_mark = false;  // a blank that the model may have put there
    bool is_token = true;           // false: a gap between added tokens
  };
  // Places where a text can be cut without changing its ids.
  enum class Cuts { kNone, kLines, kWords, kNormalizedWords };
  // Kind of text before the encoded one.
  enum class Before { kNothing, kText, kAddedToken };

  SentencePieceTokenizer(std::string model_bytes,
                         const std::string& source_name,
                         const SpecialTokens* special);
  void fill_surfaces(const std::string& source_name);
  void add_surfaces(const std::string& source_name);
  void choose_cuts(const std::string& source_name);
  std::vector<int32_t> encode_parts(std::string_view text, Before before) const;
  std::vector<int32_t> encode_units(std::string_view text, Before before) const;
  bool begins_normalized_word(std::string_view text, size_t at) const;
  bool can_cut(std::string_view text, size_t at) const;
  size_t unit_bytes(std::string_view text) const;

  std::string model_bytes_;
  std::string fingerprint_;
  SpecialTokens special_;
  AddedTokens added_;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
  std::unique_ptr<sentencepiece::SentencePieceProcessor> rest_processor_;  // adds no leading blank
  std::unique_ptr<sentencepiece::SentencePieceProcessor> word_processor_;  // puts a blank first
  const sentencepiece::SentencePieceProcessor* continued_ = nullptr;       // the one after a cut
  std::vector<Surface> surfaces_;                                          // [vocab_size]
  SentencePieceModelTraits traits_;
  SentencePieceCharsmap charsmap_;
  bool drops_leading_blank_ = false;
  bool drops_leading_blanks_ = false;
  Cuts cuts_ = Cuts::kNone;
  mutable WordCachePool word_caches_;
};

/// Training text of a model: all of it, or an even sample if there is more than max_bytes.
struct TrainingTexts {
  std::vector<std::string> paths;
  TextFormat format;
  size_t max_bytes = size_t{128} << 20;  ///< held in memory
};

/// Trains a model on text files, deterministically. Byte fallback makes every text encodable (not
/// for kChars, which takes every character of the text, sampled or not). Line ends are separate
/// symbols, blanks are kept as they are. Returns the bytes of the `.model` file. Throws Error if
/// the text does not allow the vocabulary size.
std::string train_sentencepiece(const TrainingTexts& texts,
                                SentencePieceKind kind,
                                int64_t vocab_size);

}  // namespace dsmoe
