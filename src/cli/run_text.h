#pragma once

#include "train/run_summary.h"
#include "train/trainer.h"

namespace dsmoe {

/// Prints what a run begins with to standard error: its start, model, data, steps, machine.
void print_run_header(const RunSummary& summary);

/// Prints what a run ended with to standard error: losses, time, checkpoint, and the commands that
/// come next.
void print_run_footer(const RunSummary& summary, const TrainResult& result);

}  // namespace dsmoe
