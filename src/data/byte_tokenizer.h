#pragma once

#include "data/tokenizer.h"

namespace dsmoe {

/// One id per byte, 0 to 255; id 256 marks the boundary of documents and is both BOS and EOS.
class ByteTokenizer final : public Tokenizer {
 public:
  std::vector<int32_t> encode(std::string_view text) const override;
  std::string decode(const std::vector<int32_t>& ids) const override;
  int64_t vocab_size() const override { return 257; }
  const SpecialTokens& special_tokens() const override;
  std::string fingerprint() const override { return "bytes-257"; }
  size_t divide(std::string_view text) const override { return text.size(); }
};

}  // namespace dsmoe
