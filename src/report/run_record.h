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
};

/// Reads `RUN/metrics.jsonl`, `RUN/config.yaml` and the newest checkpoint's manifest, if there is
/// one; leaves out a torn last line of a run in progress. Throws Error for a directory without the
/// first two, a line that is not JSON, or an altered manifest.
RunRecord read_run(Io& io, const std::string& run_directory);

}  // namespace dsmoe
