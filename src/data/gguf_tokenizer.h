#pragma once

#include "data/tokenizer.h"
#include "formats/gguf.h"

namespace dsmoe {

/// Returns the `tokenizer.ggml.*` metadata of a GGUF file: SentencePiece BPE with byte fallback as
/// `llama`, byte-level BPE with the expression of GPT-2 or Llama 3 as `gpt2`; ids without a token
/// up to vocab_size become unused ones. Empty for tokenizers that the format cannot express: bytes,
/// unigram models, normalizers that rewrite characters, other expressions.
GgufMetadata gguf_tokenizer(const Tokenizer& tokenizer, int64_t vocab_size);

}  // namespace dsmoe
