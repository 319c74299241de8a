#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "cli/options/eval_protocol.h"
#include "cli/options/model_options.h"
#include "data/text_reader.h"

namespace dsmoe {

/// Arguments of `dsmoe eval`.
struct EvalCommand {
  ModelOptions model;
  std::vector<std::string> data;
  TextFormat format;
  std::string choices;
  std::string out;
  std::string against;
  std::string against_policy;
  EvalProtocol protocol;
  int64_t batch = 8;
  std::string words;
  bool experts = false;
  bool force = false;
  bool json = false;
};

}  // namespace dsmoe
