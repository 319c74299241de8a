#include "cli/options/check.h"

#include <memory>

#include "cli/commands.h"
#include "cli/options/model_options.h"
#include "cli/options/text_options.h"
#include "cli/run_functions.h"

namespace dsmoe {

void add_check_command(CommandLine& line) {
  auto options = std::make_shared<CheckCommand>();
  auto& command = line.subcommand(
      "check",
      "Compare sparse execution with dense, layer by layer. Also looks for weights that are not "
      "finite, experts without load and experts that are alike; exits with 1 if it fails.\n"
      "Example: dsmoe check runs/quickstart --policy threshold=0.48");
  add_checkpoint_argument(command, options->checkpoint);
  add_policy_option(command, options->policy)
      .default_text(
          "the training selection, or if that is all a quarter of the FFN and half of "
          "the attention experts");
  const auto data = command.option("--data", options->data, text_help("run on"))
                        .text_path()
                        .default_text("random tokens, on which no expert is called dead");
  add_text_options(command, options->format, data);
  add_threads_option(command, options->threads);
  add_json_option(command, options->json);
  command.on_run([options] { return run_functions().check(*options); });
}

}  // namespace dsmoe
