#include "data/tokenizer.h"

namespace dsmoe {

std::optional<int32_t> Tokenizer::eos_id() const {
  for (const int32_t id : special_tokens().eos) {
    if (has_token(id)) return id;
  }
  return std::nullopt;
}

std::vector<int32_t> Tokenizer::encode_with_bos(std::string_view text) const {
  auto ids = encode(text);
  const auto& special = special_tokens();
  if (!special.adds_bos || !special.bos) return ids;
  if (ids.empty() || ids.front() != *special.bos) ids.insert(ids.begin(), *special.bos);
  return ids;
}

}  // namespace dsmoe
