#pragma once

#include "cli/command_line.h"

namespace dsmoe {

/// Each adds one subcommand.
void add_tokenize_command(CommandLine& line);
void add_init_command(CommandLine& line);
void add_train_command(CommandLine& line);
void add_eval_command(CommandLine& line);
void add_recommend_command(CommandLine& line);
void add_budget_command(CommandLine& line);
void add_check_command(CommandLine& line);
void add_curve_command(CommandLine& line);
void add_generate_command(CommandLine& line);
void add_convert_command(CommandLine& line);
void add_inspect_command(CommandLine& line);
void add_bench_command(CommandLine& line);
void add_export_command(CommandLine& line);
void add_plan_command(CommandLine& line);
void add_report_command(CommandLine& line);
void add_launch_command(CommandLine& line);
void add_help_command(CommandLine& line);
void add_completion_command(CommandLine& line);

}  // namespace dsmoe
