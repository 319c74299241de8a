#pragma once

#include <cstdint>
#include <string>

#include "cli/options/model_options.h"
#include "data/text_reader.h"

namespace dsmoe {

/// Arguments of `dsmoe recommend`.
struct RecommendCommand {
  ModelOptions model;
  std::string data;
  TextFormat format;
  std::string rise = "1%";
  int64_t tokens = 8192;
  int64_t batch = 8;
  bool json = false;
};

}  // namespace dsmoe
