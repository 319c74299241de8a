#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/options/model_options.h"
#include "data/text_reader.h"

namespace dsmoe {

/// Arguments of `dsmoe budget`.
struct BudgetCommand {
  ModelOptions model;
  std::string data;
  TextFormat format;
  std::optional<double> active_parameters;
  std::string perplexity_rise;  ///< a share; empty: no target
  std::optional<double> ms_per_token;
  std::vector<std::string> candidates;
  int64_t tokens = 1024;
  int64_t held_out_tokens = 8192;
  int64_t batch = 8;
  std::string out;
  bool force = false;
  bool json = false;
};

}  // namespace dsmoe
