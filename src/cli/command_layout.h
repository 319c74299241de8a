#pragma once

#include <cstddef>

#include "cli/options/bench.h"
#include "cli/options/budget.h"
#include "cli/options/check.h"
#include "cli/options/convert.h"
#include "cli/options/curve.h"
#include "cli/options/eval.h"
#include "cli/options/export.h"
#include "cli/options/generate.h"
#include "cli/options/init.h"
#include "cli/options/inspect.h"
#include "cli/options/plan.h"
#include "cli/options/recommend.h"
#include "cli/options/report.h"
#include "cli/options/tokenize.h"
#include "cli/options/train.h"

namespace dsmoe {

/// Depends on the sizes of all commands' arguments: a program and a dsmoe_commands.so of two builds
/// are told apart where they would read them differently.
constexpr size_t command_layout() {
  size_t layout = 0;
  for (const size_t size : {sizeof(BenchCommand),
                            sizeof(BudgetCommand),
                            sizeof(CheckCommand),
                            sizeof(ConvertCommand),
                            sizeof(CurveCommand),
                            sizeof(EvalCommand),
                            sizeof(ExportCommand),
                            sizeof(GenerateCommand),
                            sizeof(InitCommand),
                            sizeof(InspectCommand),
                            sizeof(PlanCommand),
                            sizeof(RecommendCommand),
                            sizeof(ReportCommand),
                            sizeof(TokenizeCommand),
                            sizeof(TrainCommand)}) {
    layout = 1009 * layout + size;
  }
  return layout;
}

}  // namespace dsmoe
