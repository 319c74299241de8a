#pragma once

#include <string>
#include <vector>

namespace dsmoe {

/// Arguments of `dsmoe report`.
struct ReportCommand {
  std::vector<std::string> runs;
  std::string curve;
  std::vector<std::string> samples;
  std::string out = "report.html";
  bool force = false;
  bool json = false;
};

}  // namespace dsmoe
