#include "cli/options/check.h"

#include <fmt/format.h>

#include <memory>

#include "cli/commands.h"
#include "cli/options/text_options.h"
#include "cli/run_functions.h"

namespace dsmoe {

void add_check_command(CommandLine& line) {
  auto options = std::make_shared<CheckCommand>();
  auto& command = line.subcommand(
      "check",
      "Holds sparse execution against dense, layer by layer, and looks for weights that are not\n"
      "finite, experts without load and experts that are alike. Exits with 1 if it fails.\n"
      "Example: dsmoe check runs/quickstart --policy threshold=0.48");
  command
      .option(
          "checkpoint", options->checkpoint, "checkpoint or run directory (its newest valid one)")
      .path()
      .required();
  command.option("--policy",
                 options->policy,
                 "as for eval (default: the training selection, or if that is all a quarter "
                 "of the FFN and half of the attention experts)");
  const auto data =
      command
          .option("--data",
                  options->data,
                  fmt::format("token shards, or a file of {} (default: random tokens)", kTextHelp))
          .path();
  add_text_options(command, options->format, data);
  command.option("--threads", options->threads, "0: all cores").range(0, 4096);
  command.flag("--json", options->json, "one JSON object on standard output");
  command.on_run([options] { return run_functions().check(*options); });
}

}  // namespace dsmoe
