#include "cli/options/train.h"

#include <memory>

#include "cli/commands.h"
#include "cli/options/model_options.h"
#include "cli/run_functions.h"

namespace dsmoe {

void add_train_command(CommandLine& line) {
  auto options = std::make_shared<TrainCommand>();
  auto& command = line.subcommand(
      "train",
      "Train a model. Further arguments --section.key=value override keys of the config.\n"
      "Example: dsmoe train configs/quickstart.yaml --train.steps=100 --run_dir=runs/short");
  command.option("config", options->config, "YAML file, see configs/README.md").path();
  command
      .option(
          "--resume",
          options->resume,
          "start from: auto, the newest valid checkpoint of run_dir if there is one; none; or a "
          "checkpoint")
      .path()
      .type("auto|none|PATH");
  command.option("--device", options->device, "run there: the key device")
      .choices({"cpu", "cuda", "auto"})
      .default_text("the config's");
  command.flag("--dry-run",
               options->dry_run,
               "check everything but the weights, print sizes, steps, memory and disk, then stop");
  command.flag("--print-config", options->print_config, "print the resolved config, then stop");
  command.flag("--list-keys", options->list_keys, "print every key with its meaning, then stop");
  command.flag("--json", options->json, "print one JSON object on standard output at the end");
  command.other_arguments(options->overrides);
  command.on_run([options] { return run_functions().train(*options); });
}

}  // namespace dsmoe
