#include "data/byte_tokenizer.h"

#include <fmt/format.h>

#include "common/error.h"

namespace dsmoe {

std::vector<int32_t> ByteTokenizer::encode(std::string_view text) const {
  std::vector<int32_t> ids;
  ids.reserve(text.size());
  for (const char letter : text) ids.push_back(static_cast<unsigned char>(letter));
  return ids;
}

std::string ByteTokenizer::decode(const std::vector<int32_t>& ids) const {
  std::string text;
  text.reserve(ids.size());
  for (const int32_t id : ids) {
    if (id < 0) throw Error(fmt::format("byte tokenizer: expected ids of 0 or more, got {}", id));
    if (id < 256) text.push_back(static_cast<char>(id));
  }
  return text;
}

const SpecialTokens& ByteTokenizer::special_tokens() const {
  static const SpecialTokens kSpecial{.bos = 256, .adds_bos = true, .eos = {256}};
  return kSpecial;
}

}  // namespace dsmoe
