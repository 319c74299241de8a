#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/special_tokens.h"

namespace dsmoe {

/// Converts text to token ids and back.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Returns the ids of the text, without BOS and EOS.
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;
  /// Returns the bytes of the ids. Special tokens and ids without a token (rows that pad a model's
  /// vocabulary) give none, so that no id truncates a text. Throws Error for a negative id.
  virtual std::string decode(const std::vector<int32_t>& ids) const = 0;

  /// Ids are below it; some may have no token.
  virtual int64_t vocab_size() const = 0;
  virtual bool has_token(int64_t id) const { return id >= 0 && id < vocab_size(); }
  virtual const SpecialTokens& special_tokens() const = 0;
  /// Equal exactly for two tokenizers with the same ids.
  virtual std::string fingerprint() const = 0;

  /// Returns a place to cut a text that is encoded in parts: with a = text.substr(0, divide(text))
  /// and any c, encode(text + c) is encode(a) followed by encode_rest of the text after a. 0: no
  /// such place.
  virtual size_t divide(std::string_view /*text*/) const { return 0; }
  /// Returns the ids of the text after a part that divide() cut off.
  virtual std::vector<int32_t> encode_rest(std::string_view text) const { return encode(text); }

  std::optional<int32_t> bos_id() const { return special_tokens().bos; }
  /// Returns the EOS that ends documents: the first that has a token.
  std::optional<int32_t> eos_id() const;
  /// Returns encode(text), after BOS if the tokenizer adds it (SpecialTokens::adds_bos) and the
  /// text does not begin with it.
  std::vector<int32_t> encode_with_bos(std::string_view text) const;
};

}  // namespace dsmoe
