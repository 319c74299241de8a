#include "cli/options/train.h"

#include <memory>

#include "cli/commands.h"
#include "cli/run_functions.h"

namespace dsmoe {

void add_train_command(CommandLine& line) {
  auto options = std::make_shared<TrainCommand>();
  auto& command = line.subcommand(
      "train",
      "Trains a model; further arguments --section.key=value override keys of the config.\n"
      "Example: dsmoe train configs/quickstart.yaml --train.steps=100 --run_dir=runs/short");
  command.option("config", options->config, "YAML file, see configs/README.md").path();
  command
      .option("--resume",
              options->resume,
              "auto (default: from run_dir's newest valid checkpoint, if any), none, or a "
              "checkpoint")
      .path();
  command.option("--device", options->device, "cpu, cuda or auto: the key device");
  command.flag("--dry-run", options->dry_run, "check config and data, then stop");
  command.flag("--print-config", options->print_config, "print the resolved config, then stop");
  command.flag("--list-keys", options->list_keys, "print every key with its meaning, then stop");
  command.flag("--json", options->json, "one JSON object on standard output at the end");
  command.other_arguments(options->overrides);
  command.on_run([options] { return run_functions().train(*options); });
}

}  // namespace dsmoe
