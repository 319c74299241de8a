#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "data/text_reader.h"
#include "data/token_dataset.h"
#include "data/tokenizer.h"

namespace dsmoe {

/// Text to be scored: sequences that are scored each on its own.
struct EvalText {
  std::vector<std::vector<int32_t>> sequences;
  int64_t n_bytes = 0;         ///< of text
  int64_t n_words = 0;         ///< white-space words plus line ends; 0 when read from shards
  std::vector<size_t> groups;  ///< of each sequence, which of several texts it is of; empty: one
  std::vector<int64_t> group_bytes;  ///< of each of several texts; empty: one
  int32_t unscored_id = -1;  ///< a target that is never scored: the document boundary; -1: none
};

/// Appends `other`, of the same tokenizer, as one more group.
void append_group(EvalText& text, EvalText other);

/// White-space separated words plus line ends, the WikiText convention.
int64_t count_words(std::string_view text);

/// From a file of text or JSON lines, or from a directory of token shards.
///
/// documents  false: one sequence, each document preceded by BOS where the tokenizer has one;
///            true: one sequence per document, without the blanks at its ends, from BOS, cut to
///            max_tokens (a cut text's bytes are those of the tokens kept)
/// format     of a file; see read_text_parts
/// Throws Error if the file is missing, empty or not UTF-8, or if shards were made by another
/// tokenizer than `tokenizer`.
EvalText read_eval_text(const std::string& path,
                        const Tokenizer& tokenizer,
                        bool documents,
                        int64_t max_tokens,
                        const TextFormat& format = {});

}  // namespace dsmoe
