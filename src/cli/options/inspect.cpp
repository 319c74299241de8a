#include "cli/options/inspect.h"

#include <memory>

#include "cli/commands.h"
#include "cli/run_functions.h"

namespace dsmoe {

void add_inspect_command(CommandLine& line) {
  auto options = std::make_shared<InspectCommand>();
  auto& command = line.subcommand("inspect",
                                  "Shows what a checkpoint holds and verifies every byte of it.\n"
                                  "Example: dsmoe inspect runs/quickstart");
  command.option("checkpoint", options->checkpoint, "checkpoint or run directory")
      .path()
      .required();
  command.flag("--tensors", options->tensors, "list every tensor");
  command.flag("--json", options->json, "one JSON object on standard output");
  command.on_run([options] { return run_functions().inspect(*options); });
}

}  // namespace dsmoe
