#pragma once

#include <string>
#include <vector>

#include "common/io.h"
#include "infer/sequence.h"

namespace dsmoe {

/// The ids that a prompt begins with, BOS first. Throws Error if there is none.
std::vector<int32_t> encode_prompt(const std::string& text, const Tokenizer& tokenizer);

/// A request before its prompt is tokenized.
struct TextRequest {
  std::string prompt = {};
  GenerateRequest options = {};  // without ids
  std::string place = {};        // `file:line`
  std::string error = {};        // why the line is no request, with its place; empty: it is one
};

/// Prompts from a file: one a line, or in a file that holds_json_lines one object a line, its
/// prompt under the key `field` (empty: "prompt") and where they differ from `defaults`
/// `max_tokens`, `temperature`, `top_k`, `top_p`, `min_p`, `repetition_penalty`, `seed`, `stop`
/// (array of texts). Blank lines are skipped; a line ends with LF or CR LF. A line that is no
/// request gives one with an error. Throws Error for a file that cannot be read or has no prompt.
std::vector<TextRequest> read_prompts(Io& io,
                                      const std::string& path,
                                      const GenerateRequest& defaults,
                                      const std::string& field);

}  // namespace dsmoe
