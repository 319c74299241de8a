#pragma once

#include <string>
#include <vector>

#include "common/io.h"
#include "infer/sequence.h"

namespace dsmoe {

/// A request before its prompt is tokenized.
struct TextRequest {
  std::string prompt;
  GenerateRequest options;  // without ids
};

/// Prompts from a file: one a line, or in a file `*.jsonl` one object a line, `{"prompt": str}` and
/// where they differ from `defaults` `max_tokens`, `temperature`, `top_k`, `top_p`, `min_p`,
/// `repetition_penalty`, `seed`, `stop` (array of texts). Throws Error naming file and line.
std::vector<TextRequest> read_prompts(Io& io,
                                      const std::string& path,
                                      const GenerateRequest& defaults);

}  // namespace dsmoe
