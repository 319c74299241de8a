#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "formats/pre_tokenizer_json.h"
#include "formats/special_tokens.h"

namespace dsmoe {

/// Two neighbouring tokens that become one; the order of merges is their priority.
struct BpeMerge {
  int32_t left = 0;
  int32_t right = 0;
  int32_t merged = 0;
};

/// A byte-level BPE tokenizer as Hugging Face's `tokenizer.json` describes it.
struct BpeTokenizerFile {
  std::vector<std::string> token_bytes;  // decoded bytes per id
  std::vector<BpeMerge> merges;
  std::vector<AddedToken> added;
  bool is_nfc = false;            // texts are normalized first
  PreTokenizerSteps steps;        // cut a text into pieces; merges stay within a piece
  bool ignore_merges = false;     // a piece that is a token stays whole
  std::optional<int32_t> bos_id;  // the post-processor puts it before a text
};

/// Returns true for a description of byte-level BPE, false for other kinds. Throws Error if it is
/// no JSON object.
bool is_byte_level_bpe(const std::string& text, const std::string& source_name);

/// Throws Error for an unsupported pattern.
using CheckSteps = std::function<void(const PreTokenizerSteps& steps)>;

/// Parses a byte-level BPE tokenizer, merges as texts or as pairs. Throws Error naming source_name
/// for invalid or unsupported parts: normalizers other than NFC, byte fallback, other
/// pre-tokenizers. Refused input, by check_steps too, takes no more memory than the text and 1 MB.
BpeTokenizerFile parse_bpe_tokenizer(const std::string& text,
                                     const std::string& source_name,
                                     const CheckSteps& check_steps = {});

/// The 256 characters that represent bytes in such a file, as UTF-8, by byte.
const std::vector<std::string>& byte_characters();

}  // namespace dsmoe
