#pragma once

#include <nlohmann/json.hpp>

#include <string>
#include <vector>

#include "report/run_record.h"

namespace dsmoe {

/// Returns what the script of the report page draws; page/report.js reads it.
///
/// Of each run: its lines over training at no more than some hundred logged steps, the lowest and
/// highest loss and gradient norm of every stretch among them, and on each axis (`step`, `tokens`,
/// `seconds`) their places; the same by layer; the validations of every policy; loads of experts.
/// All runs together have a bounded number of values: the page stays below 2 MB.
/// curve  output of `curve --json`, or null
nlohmann::ordered_json page_data(const std::vector<RunRecord>& runs, const nlohmann::json& curve);

/// Wall seconds of a run: those of its last line or, where it has none, those of training that its
/// speeds give.
double wall_seconds(const RunRecord& run);

/// Returns a number of a line; NaN where it is missing or null.
double number_of(const nlohmann::json& line, const std::string& key);

}  // namespace dsmoe
