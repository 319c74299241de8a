#include "cli/options/inspect.h"

#include <memory>

#include "cli/commands.h"
#include "cli/options/model_options.h"
#include "cli/run_functions.h"

namespace dsmoe {

void add_inspect_command(CommandLine& line) {
  auto options = std::make_shared<InspectCommand>();
  auto& command = line.subcommand("inspect",
                                  "Show what a checkpoint holds and verify every byte of it.\n"
                                  "Example: dsmoe inspect runs/quickstart");
  add_checkpoint_argument(command, options->checkpoint);
  command.flag("--tensors", options->tensors, "list every tensor");
  add_json_option(command, options->json);
  command.on_run([options] { return run_functions().inspect(*options); });
}

}  // namespace dsmoe
