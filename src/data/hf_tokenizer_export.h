#pragma once

#include <vector>

#include "data/tokenizer_files.h"

namespace dsmoe {

/// Returns a tokenizer in Hugging Face's layout, as transformers 4.34 to 5 and llama.cpp read it:
/// `tokenizer.json` or `tokenizer.model`, `tokenizer_config.json` (names, `add_bos_token`,
/// `added_tokens_decoder`), `special_tokens_map.json`, and `added_tokens.json` if a `.model` lacks
/// tokens. Every id of EOS is in `generation_config.json`, which the model's export writes. Returns
/// no files for the byte tokenizer, which Hugging Face does not have.
std::vector<TokenizerFile> hf_tokenizer_files(const Tokenizer& tokenizer);

}  // namespace dsmoe
