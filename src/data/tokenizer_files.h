#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/io.h"
#include "data/text_reader.h"
#include "data/tokenizer.h"

namespace dsmoe {

/// A tokenizer and the files that describe it: what a data set and a checkpoint carry.
/// `tokenizer.json` says `{"kind": "bytes"}` or `{"kind": "sentencepiece", "fingerprint": ...,
/// "special_tokens": {...}}`, which comes with `tokenizer.model`, or kind `hf-bpe`, which comes
/// with `hf_tokenizer.json`. Without `special_tokens` (older files) a BOS is added to every text.
struct TokenizerFile {
  std::string name;
  std::string bytes;
};

/// From the command line: `bytes`, or the path of a SentencePiece `.model` file, of a Hugging Face
/// `tokenizer.json` of byte-level BPE or of a llama2.c `tokenizer.bin`, or `chars`,
/// `train:bpe:4096`, `train:unigram:8000`, which train on `inputs`. Throws Error.
std::unique_ptr<Tokenizer> make_tokenizer(const std::string& spec,
                                          const std::vector<std::string>& inputs,
                                          const TextFormat& format = {});

/// The files from which load_tokenizer makes the same tokenizer again.
std::vector<TokenizerFile> tokenizer_files(const Tokenizer& tokenizer);

/// From a directory that holds tokenizer files. Throws Error.
std::unique_ptr<Tokenizer> load_tokenizer(Io& io, const std::string& directory);

/// A byte-level BPE tokenizer from Hugging Face's `tokenizer.json`, its special tokens from the
/// files beside it as read_hf_special_tokens says. max_tokens: rows of the model; tokens that those
/// files add past them are left out with a warning. Throws Error.
std::unique_ptr<Tokenizer> read_hf_tokenizer(Io& io,
                                             const std::string& path,
                                             int64_t max_tokens = kMaxSpecialId);

/// A SentencePiece tokenizer from a `.model` file, its special tokens from Hugging Face's files
/// beside it, or from a checkpoint's own description there, or from the model where it is alone.
/// max_tokens: as above. Throws Error.
std::unique_ptr<Tokenizer> read_hf_sentencepiece(Io& io,
                                                 const std::string& path,
                                                 int64_t max_tokens = kMaxSpecialId);

}  // namespace dsmoe
