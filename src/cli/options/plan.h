#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace dsmoe {

/// Arguments of `dsmoe plan`.
struct PlanCommand {
  std::string config;
  std::vector<std::string> overrides;
  std::string gpu = "h100";
  int64_t n_gpus = 1;
  int64_t gpus_per_host = 8;
  double network_gigabytes = 50;
  std::optional<double> mfu;  ///< empty: that of the roofline
  double price_per_hour = 0;  ///< 0: unknown
  std::string currency = "USD";
  std::vector<std::string> policies;
  int64_t n_keys = 1024;
  bool roofline = false;
  bool json = false;
};

}  // namespace dsmoe
