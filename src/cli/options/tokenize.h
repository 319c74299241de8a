#pragma once

#include <string>

#include "data/tokenize.h"

namespace dsmoe {

/// Arguments of `dsmoe tokenize`.
struct TokenizeCommand {
  TokenizeOptions tokenize;
  std::string validation;  // a share such as 5%; empty: none
  bool force = false;
  bool json = false;
};

}  // namespace dsmoe
