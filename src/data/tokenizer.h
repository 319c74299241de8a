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
  /// True if encode(a + b) is encode(a) and then encode(b) whenever `a` ends with a line feed: such
  /// a text may be encoded in parts, side by side.
  virtual bool encodes_lines_apart() const { return false; }
};

/// Gives out only whole UTF-8 characters of a growing byte stream, so that a terminal never sees
/// half of one. What it gave out, joined, is the stream; invalid bytes pass once they cannot become
/// valid.
class Utf8Stream {
 public:
  /// Adds bytes; returns what is complete.
  std::string push(std::string_view bytes);
  /// Ends the stream; returns what is left, whole or not.
  std::string finish();

 private:
  std::string pending_;
};

}  // namespace dsmoe
