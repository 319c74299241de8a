#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

#include "report/run_record.h"

namespace dsmoe {

/// A text to be shown, such as `generate` printed.
struct TextSample {
  std::string name;
  std::string text;
};

/// One HTML page that needs nothing outside itself: a table of the runs, their losses, learning
/// rate, gradient norm and speed in common plots, then for each run how its experts were used over
/// time, its events, its environment and its config. `curve` is what `curve --json` printed, or
/// null; samples are shown as they are.
std::string runs_to_html(const std::vector<RunRecord>& runs,
                         const nlohmann::json& curve,
                         const std::vector<TextSample>& samples = {});

}  // namespace dsmoe
