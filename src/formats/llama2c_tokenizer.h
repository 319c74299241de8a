#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace dsmoe {

/// One token of a llama2.c tokenizer; blanks are plain blanks, bytes are written `<0x41>`.
struct Llama2cToken {
  std::string text;
  float score = 0;
};

/// Parses a llama2.c `tokenizer.bin`: the longest length, then score, length and text of each token
/// by id. Ids 0 to 2 are unknown, BOS and EOS, 3 to 258 the bytes. Throws Error naming source_name.
std::vector<Llama2cToken> parse_llama2c_tokenizer(std::string_view bytes,
                                                  const std::string& source_name);

}  // namespace dsmoe
