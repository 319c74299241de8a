#pragma once

#include <nlohmann/json.hpp>

#include "train/run_summary.h"

namespace dsmoe {

/// Prints the summary of a run, a line a subject, with what does not fit.
void print_summary(const RunSummary& summary);

nlohmann::ordered_json summary_json(const RunSummary& summary);

}  // namespace dsmoe
