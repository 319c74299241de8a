#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "formats/special_tokens.h"

namespace dsmoe {

/// Text to token ids and back.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Ids of the text alone; no BOS or EOS is added.
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;
  /// The bytes of the ids. Special tokens and ids without a token (rows that pad a model's
  /// vocabulary) give none, so that no id ends a text in its middle. Throws Error for a negative
  /// id.
  virtual std::string decode(const std::vector<int32_t>& ids) const = 0;

  /// Ids are below it; some may have no token.
  virtual int64_t vocab_size() const = 0;
  virtual bool has_token(int64_t id) const { return id >= 0 && id < vocab_size(); }
  virtual const SpecialTokens& special_tokens() const = 0;
  /// Equal for two tokenizers exactly if they give the same ids.
  virtual std::string fingerprint() const = 0;

  /// A text may be encoded in parts: with a = text.substr(0, divide(text)) and any c, encode(text +
  /// c) is encode(a) followed by encode_rest(what comes after a). 0: it cannot be divided.
  virtual size_t divide(std::string_view /*text*/) const { return 0; }
  /// Ids of what follows a part that divide() cut off.
  virtual std::vector<int32_t> encode_rest(std::string_view text) const { return encode(text); }

  std::optional<int32_t> bos_id() const { return special_tokens().bos; }
  /// The EOS that ends documents: the first that has a token.
  std::optional<int32_t> eos_id() const;
  /// encode(text) from BOS, where the tokenizer adds one (SpecialTokens::adds_bos) and the text
  /// does not begin with it itself.
  std::vector<int32_t> encode_with_bos(std::string_view text) const;
};

}  // namespace dsmoe
