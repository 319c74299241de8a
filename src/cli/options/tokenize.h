#pragma once

#include <string>

#include "data/tokenize.h"

namespace dsmoe {

/// Arguments of `dsmoe tokenize`.
struct TokenizeCommand {
  TokenizeOptions tokenize;
  bool force = false;
  bool json = false;
};

}  // namespace dsmoe
