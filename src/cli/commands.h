#pragma once

#include <CLI/CLI.hpp>

#include <functional>

namespace dsmoe {

/// What a parsed command line asks for; returns the exit code.
using CommandRun = std::function<int()>;

/// Each adds one subcommand; when it is the one parsed, `run` is set.
void add_tokenize_command(CLI::App& app, CommandRun& run);
void add_train_command(CLI::App& app, CommandRun& run);
void add_eval_command(CLI::App& app, CommandRun& run);
void add_budget_command(CLI::App& app, CommandRun& run);
void add_check_command(CLI::App& app, CommandRun& run);
void add_curve_command(CLI::App& app, CommandRun& run);
void add_generate_command(CLI::App& app, CommandRun& run);
void add_convert_command(CLI::App& app, CommandRun& run);
void add_inspect_command(CLI::App& app, CommandRun& run);
void add_bench_command(CLI::App& app, CommandRun& run);
void add_export_command(CLI::App& app, CommandRun& run);
void add_plan_command(CLI::App& app, CommandRun& run);
void add_report_command(CLI::App& app, CommandRun& run);
void add_launch_command(CLI::App& app, CommandRun& run);

}  // namespace dsmoe
