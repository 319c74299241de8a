#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/options/eval_protocol.h"
#include "cli/options/model_options.h"
#include "data/text_reader.h"

namespace dsmoe {

/// Arguments of `dsmoe curve`.
struct CurveCommand {
  ModelOptions model;
  std::string data;
  TextFormat format;
  std::vector<std::string> policies;
  EvalProtocol protocol;
  int64_t batch = 8;
  std::string plot;
  bool force = false;
  bool json = false;
};

}  // namespace dsmoe
