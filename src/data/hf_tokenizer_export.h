#pragma once

#include <vector>

#include "data/tokenizer_files.h"

namespace dsmoe {

/// A tokenizer in Hugging Face's layout, as transformers 4.34 to 5 and llama.cpp read it:
/// `tokenizer.json` or `tokenizer.model`, `tokenizer_config.json` (names, `add_bos_token`,
/// `added_tokens_decoder`), `special_tokens_map.json`, and `added_tokens.json` where a `.model`
/// lacks tokens. Every id of EOS is in `generation_config.json`, which the model's export writes.
/// No files for bytes, which that world lacks.
std::vector<TokenizerFile> hf_tokenizer_files(const Tokenizer& tokenizer);

}  // namespace dsmoe
