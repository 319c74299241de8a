#pragma once

#include <string>

#include "data/text_reader.h"

namespace dsmoe {

/// Arguments of `dsmoe export`.
struct ExportCommand {
  std::string checkpoint;
  std::string out;
  std::string target;
  std::string policy;
  std::string dtype = "float32";
  std::string logits;
  std::string text;
  TextFormat format;
  bool force = false;
  int threads = 0;
  bool json = false;
};

}  // namespace dsmoe
