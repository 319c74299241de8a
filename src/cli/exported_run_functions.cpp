// The table that dsmoe_commands.so exports.
#include <c10/util/Exception.h>

#include "cli/command_layout.h"
#include "cli/run_functions.h"
#include "common/error.h"

namespace dsmoe {
namespace {

template <auto run, typename Command>
int without_torch_errors(const Command& command) {
  try {
    return run(command);
  } catch (const c10::Error& error) {
    throw RunError(error.what_without_backtrace());
  }
}

}  // namespace
}  // namespace dsmoe

extern "C" const dsmoe::RunFunctions dsmoe_run_functions;
const dsmoe::RunFunctions dsmoe_run_functions = {
    .version = DSMOE_VERSION,
    .layout = dsmoe::command_layout(),
    .tokenize = dsmoe::without_torch_errors<dsmoe::run_tokenize>,
    .train = dsmoe::without_torch_errors<dsmoe::run_train>,
    .eval = dsmoe::without_torch_errors<dsmoe::run_eval>,
    .check = dsmoe::without_torch_errors<dsmoe::run_check>,
    .curve = dsmoe::without_torch_errors<dsmoe::run_curve>,
    .recommend = dsmoe::without_torch_errors<dsmoe::run_recommend>,
    .budget = dsmoe::without_torch_errors<dsmoe::run_budget>,
    .generate = dsmoe::without_torch_errors<dsmoe::run_generate>,
    .convert = dsmoe::without_torch_errors<dsmoe::run_convert>,
    .init = dsmoe::without_torch_errors<dsmoe::run_init>,
    .inspect = dsmoe::without_torch_errors<dsmoe::run_inspect>,
    .bench = dsmoe::without_torch_errors<dsmoe::run_bench>,
    .plan = dsmoe::without_torch_errors<dsmoe::run_plan>,
    .export_checkpoint = dsmoe::without_torch_errors<dsmoe::run_export>,
    .report = dsmoe::without_torch_errors<dsmoe::run_report>,
};
