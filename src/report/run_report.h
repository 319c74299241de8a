#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

#include "report/run_record.h"

namespace dsmoe {

/// A text to show, such as the output of `generate`.
struct TextSample {
  std::string name;
  std::string text;
};

/// Returns one self-contained HTML page: tables of the runs, of their last validations and of the
/// keys in which their configs differ; plots that a script draws, with values under the pointer and
/// a choice of axis and smoothing; for each run loads of experts, events, environment and config.
/// `curve` is the output of `curve --json`, or null; samples are shown unchanged.
std::string runs_to_html(const std::vector<RunRecord>& runs,
                         const nlohmann::json& curve,
                         const std::vector<TextSample>& samples = {});

}  // namespace dsmoe
