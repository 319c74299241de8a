#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dsmoe {

/// Text to token ids and back.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  /// Ids of the text alone; no BOS or EOS is added.
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;
  /// The bytes of the ids; BOS and EOS give none. Throws Error for an id outside the vocabulary.
  virtual std::string decode(const std::vector<int32_t>& ids) const = 0;

  virtual int64_t vocab_size() const = 0;
  virtual std::optional<int32_t> bos_id() const = 0;
  virtual std::optional<int32_t> eos_id() const = 0;
  /// Equal for two tokenizers exactly if they give the same ids.
  virtual std::string fingerprint() const = 0;

  /// A text may be encoded in parts: with a = text.substr(0, divide(text)) and any c, encode(text +
  /// c) is encode(a) followed by encode_rest(what comes after a). 0: it cannot be divided.
  virtual size_t divide(std::string_view /*text*/) const { return 0; }
  /// Ids of what follows a part that divide() cut off.
  virtual std::vector<int32_t> encode_rest(std::string_view text) const { return encode(text); }
};

}  // namespace dsmoe
