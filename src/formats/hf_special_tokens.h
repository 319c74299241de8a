#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "common/io.h"
#include "formats/special_tokens.h"

namespace dsmoe {

/// Special tokens of a tokenizer's vocabulary, used where the files beside it set none.
struct OwnVocabulary {
  /// Id of a token of the vocabulary by its text.
  std::function<std::optional<int32_t>(const std::string& text)> find;
  std::optional<int32_t> bos = {};
  std::optional<int32_t> eos = {};
  std::vector<AddedToken> added = {};  ///< control tokens of a SentencePiece model
  bool adds_bos = false;               ///< a text begins with BOS unless a file says otherwise
};

/// The special tokens of a Hugging Face directory. tokenizer_json: path of its `tokenizer.json`,
/// empty if it has none; missing files set nothing. Precedence of the files, as in
/// transformers 4.34 to 5:
///
/// - Added tokens: those of the vocabulary, of `tokenizer.json`, then `added_tokens_decoder` of
///   `tokenizer_config.json`, whose flags replace those of the same token. Without that key,
///   `added_tokens.json`, whose tokens `tokenizer.json` replaces. A token that is named below
///   (`bos_token` and so on, `additional_special_tokens`) is an added special token too. A token
///   that the vocabulary has keeps the vocabulary's id.
/// - Names (`bos_token`, `eos_token`, `pad_token`, `unk_token`, ...): `tokenizer_config.json`;
///   without `added_tokens_decoder` those of `special_tokens_map.json` come first. null: none.
/// - BOS: the first token of the template of `tokenizer.json`, else `bos_token`, else the
///   vocabulary's, else `bos_token_id` of `generation_config.json`, then of `config.json`.
/// - Whether a text begins with BOS: the template of `tokenizer.json` where it has one, else
///   `add_bos_token` of `tokenizer_config.json`, else as the vocabulary does (a SentencePiece model
///   adds it, byte-level BPE does not). EOS likewise, never by default.
/// - EOS: `eos_token` (else the vocabulary's), then every id of `generation_config.json`, then of
///   `config.json`. transformers stops at the second list where there is one, else at the third;
///   files often name the end of a turn in one of them only, so all of them count.
/// - Padding: `pad_token`, else `pad_token_id` of `generation_config.json`, then of `config.json`.
/// - Place of a SentencePiece model's leading blank: `tokenizer.json` (normalizer Prepend or
///   prepend_scheme), else `legacy` of `tokenizer_config.json`.
///
/// Throws Error naming the file for an invalid value.
SpecialTokens read_hf_special_tokens(Io& io,
                                     const std::string& directory,
                                     const std::string& tokenizer_json,
                                     const OwnVocabulary& own);

}  // namespace dsmoe
