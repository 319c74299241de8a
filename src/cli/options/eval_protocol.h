#pragma once

#include <cstdint>

#include "cli/command_line.h"

namespace dsmoe {

/// How text is cut for the model, beside what PerplexityOptions say.
struct EvalProtocol {
  int64_t window = 0;  ///< 0: the model's context
  int64_t stride = 0;  ///< 0: window
  bool documents = false;
};

/// --window, --stride, --documents and --batch.
void add_protocol_options(Command& command, EvalProtocol& protocol, int64_t& batch);

}  // namespace dsmoe
