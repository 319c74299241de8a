#pragma once

#include <cstdint>

namespace dsmoe {

/// How text is cut for the model, beside what PerplexityOptions say.
struct EvalProtocol {
  int64_t window = 0;  ///< 0: the model's context
  int64_t stride = 0;  ///< 0: window
  bool documents = false;
};

}  // namespace dsmoe
