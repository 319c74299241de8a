#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

#include "common/io.h"

namespace dsmoe {

/// What a run directory says of its run.
struct RunRecord {
  std::string name;                         ///< of the directory
  std::string config;                       ///< the resolved config, YAML
  std::vector<nlohmann::json> steps;        ///< lines of metrics.jsonl with a loss
  std::vector<nlohmann::json> validations;  ///< with a validation loss
  std::vector<nlohmann::json> events;       ///< alarms, spikes and the like
};

/// Reads `RUN/metrics.jsonl` and `RUN/config.yaml`; a torn last line, of a run that goes on, is
/// left out. Throws Error for a directory without them, or a line that is not JSON.
RunRecord read_run(Io& io, const std::string& run_directory);

/// One HTML page that needs nothing outside itself: a table of the runs, their losses, learning
/// rate, gradient norm and speed in common plots, then for each run how its experts were used over
/// time, its events and its config. `curve` is what `curve --json` printed, or null.
std::string runs_to_html(const std::vector<RunRecord>& runs, const nlohmann::json& curve);

}  // namespace dsmoe
