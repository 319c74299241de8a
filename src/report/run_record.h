#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <utility>
#include <vector>

#include "common/io.h"

namespace dsmoe {

/// Content of a run directory.
struct RunRecord {
  std::string name;                         ///< of the directory
  std::string config;                       ///< the resolved config, YAML
  std::vector<nlohmann::json> steps;        ///< lines of metrics.jsonl with a loss
  std::vector<nlohmann::json> validations;  ///< with a validation loss
  std::vector<nlohmann::json> events;       ///< alarms, spikes and the like
  /// Name and value: threads; of the newest checkpoint versions, hashes, ranks. Empty: no
  /// checkpoint.
  std::vector<std::pair<std::string, std::string>> environment = {};
  nlohmann::json summary = {};  ///< `RUN/run.json`: parameters, machine; null: there is none
};

/// Reads `RUN/metrics.jsonl`, `RUN/config.yaml`, `RUN/run.json` and the newest checkpoint's
/// manifest, the latter two if there are any; leaves out a torn last line of a run in progress.
/// Throws Error for a directory without the first two, a line that is not JSON, or an altered
/// manifest.
RunRecord read_run(Io& io, const std::string& run_directory);

/// Keys of the runs' configs whose values differ, sorted, each with its value in every run (empty:
/// not there). Paths of the run itself are left out.
std::vector<std::pair<std::string, std::vector<std::string>>> config_differences(
    const std::vector<RunRecord>& runs);

}  // namespace dsmoe
