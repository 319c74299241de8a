#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/io.h"
#include "data/text_reader.h"
#include "data/tokenizer.h"

namespace dsmoe {

/// A tokenizer and the files that describe it, as data sets and checkpoints store them.
/// `tokenizer.json` is `{"kind": "bytes"}` or `{"kind": "sentencepiece", "fingerprint": ...,
/// "special_tokens": {...}}` with `tokenizer.model`, or kind `hf-bpe` with `hf_tokenizer.json`.
/// Without `special_tokens` (older files) a BOS is added to every text.
struct TokenizerFile {
  std::string name;
  std::string bytes;
};

/// Makes a tokenizer from the command line: `bytes`, or the path of a SentencePiece `.model` file,
/// of a Hugging Face `tokenizer.json` of byte-level BPE or of a llama2.c `tokenizer.bin`, or
/// `chars`, `train:bpe:4096`, `train:unigram:8000`, which train on `inputs`. Throws Error.
std::unique_ptr<Tokenizer> make_tokenizer(const std::string& spec,
                                          const std::vector<std::string>& inputs,
                                          const TextFormat& format = {});

/// Returns the files from which load_tokenizer makes the same tokenizer again.
std::vector<TokenizerFile> tokenizer_files(const Tokenizer& tokenizer);

/// Loads a tokenizer from a directory that holds its files. Throws Error.
std::unique_ptr<Tokenizer> load_tokenizer(Io& io, const std::string& directory);

/// Reads a byte-level BPE tokenizer from Hugging Face's `tokenizer.json`, with special tokens from
/// the files beside it (read_hf_special_tokens). max_tokens: rows of the model; leaves out, with a
/// warning, tokens that those files add past the rows. Throws Error.
std::unique_ptr<Tokenizer> read_hf_tokenizer(Io& io,
                                             const std::string& path,
                                             int64_t max_tokens = kMaxSpecialId);

/// Reads a SentencePiece tokenizer from a `.model` file, with special tokens from Hugging Face's
/// files beside it, else from a checkpoint's description there, else from the model. max_tokens: as
/// above. Throws Error.
std::unique_ptr<Tokenizer> read_hf_sentencepiece(Io& io,
                                                 const std::string& path,
                                                 int64_t max_tokens = kMaxSpecialId);

}  // namespace dsmoe
