#pragma once

#include <cstddef>

namespace dsmoe {

struct BenchCommand;
struct BudgetCommand;
struct CheckCommand;
struct ConvertCommand;
struct CurveCommand;
struct EvalCommand;
struct ExportCommand;
struct GenerateCommand;
struct InitCommand;
struct InspectCommand;
struct PlanCommand;
struct RecommendCommand;
struct ReportCommand;
struct TokenizeCommand;
struct TrainCommand;

/// What the commands do, in dsmoe_commands.so; each returns the exit code.
int run_tokenize(const TokenizeCommand& command);
int run_train(const TrainCommand& command);
int run_eval(const EvalCommand& command);
int run_check(const CheckCommand& command);
int run_curve(const CurveCommand& command);
int run_recommend(const RecommendCommand& command);
int run_budget(const BudgetCommand& command);
int run_generate(const GenerateCommand& command);
int run_convert(const ConvertCommand& command);
int run_init(const InitCommand& command);
int run_inspect(const InspectCommand& command);
int run_bench(const BenchCommand& command);
int run_plan(const PlanCommand& command);
int run_export(const ExportCommand& command);
int run_report(const ReportCommand& command);

/// The functions above, which dsmoe_commands.so exports as `dsmoe_run_functions`. They throw no
/// exception of LibTorch, which the program does not know.
struct RunFunctions {
  const char* version;  ///< of dsmoe
  size_t layout;        ///< see command_layout
  int (*tokenize)(const TokenizeCommand&);
  int (*train)(const TrainCommand&);
  int (*eval)(const EvalCommand&);
  int (*check)(const CheckCommand&);
  int (*curve)(const CurveCommand&);
  int (*recommend)(const RecommendCommand&);
  int (*budget)(const BudgetCommand&);
  int (*generate)(const GenerateCommand&);
  int (*convert)(const ConvertCommand&);
  int (*init)(const InitCommand&);
  int (*inspect)(const InspectCommand&);
  int (*bench)(const BenchCommand&);
  int (*plan)(const PlanCommand&);
  int (*export_checkpoint)(const ExportCommand&);
  int (*report)(const ReportCommand&);
};

/// Loads dsmoe_commands.so beside the program, and LibTorch with it, at the first call. Throws
/// RunError if it cannot be loaded or is of another build.
const RunFunctions& run_functions();

}  // namespace dsmoe
