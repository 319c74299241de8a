#pragma once

#include <string>
#include <vector>

namespace dsmoe {

/// Arguments of `dsmoe train`.
struct TrainCommand {
  std::string config;
  std::string resume = "auto";
  std::string device;  // empty: the config's
  std::vector<std::string> overrides;
  bool dry_run = false;
  bool print_config = false;
  bool list_keys = false;
  bool json = false;
};

}  // namespace dsmoe
