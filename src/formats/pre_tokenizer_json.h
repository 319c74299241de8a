#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

namespace dsmoe {

/// Treatment of the matches of a Split's pattern.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

/// Cuts each piece of a text at the matches of an expression.
struct SplitStep {
  std::string
      pattern;  ///< Oniguruma's syntax; `\p{tokenizers:Digits}` for the pre-tokenizer Digits
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;  ///< swaps the matches and the text between them
};

/// A pre_tokenizer of byte-level BPE: splits one after another.
struct PreTokenizerSteps {
  std::vector<SplitStep> splits;
  bool add_prefix_space = false;  ///< a blank goes before each piece that begins with none ...
  size_t prefix_before = 0;       ///< ... where this split begins: ByteLevel's own, or the end
};

/// Reads the `pre_tokenizer` of a tokenizer.json: ByteLevel, or a Sequence of Split, Digits,
/// Punctuation and Sequences that ends with ByteLevel. json may be null. Throws Error naming
/// source_name and the unsupported form.
PreTokenizerSteps read_pre_tokenizer(const nlohmann::json* json, const std::string& source_name);

/// Reads the `normalizer`: true for NFC (also within Sequences), false for none. Throws Error
/// naming source_name and the unsupported form.
bool reads_nfc(const nlohmann::json* json, const std::string& source_name);

}  // namespace dsmoe
