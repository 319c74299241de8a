#pragma once

#include <string>

#include "data/text_reader.h"

namespace dsmoe {

/// Arguments of `dsmoe check`.
struct CheckCommand {
  std::string checkpoint;
  std::string policy;
  std::string data;
  TextFormat format;
  int threads = 0;
  bool json = false;
};

}  // namespace dsmoe
