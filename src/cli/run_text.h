#pragma once

#include <string>
#include <vector>

#include "train/run_summary.h"
#include "train/trainer.h"

namespace dsmoe {

/// One fact about a run. Without a label it continues the line before.
struct RunLine {
  std::string label;
  std::string text;
};

/// `label       text`, with the line's end.
std::string as_text(const RunLine& line);

/// What is known of a run before its first step: its start, model, data, steps, machine.
std::vector<RunLine> run_lines(const RunSummary& summary);

/// Prints what a run begins with to standard error.
void print_run_header(const RunSummary& summary);

/// Prints what a run ended with to standard error: losses, time, checkpoint, and the commands that
/// come next.
void print_run_footer(const RunSummary& summary, const TrainResult& result);

}  // namespace dsmoe
