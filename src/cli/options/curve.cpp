#include "cli/options/curve.h"

#include <fmt/format.h>

#include <memory>

#include "cli/commands.h"
#include "cli/options/model_options.h"
#include "cli/options/text_options.h"
#include "cli/run_functions.h"

namespace dsmoe {

void add_curve_command(CommandLine& line) {
  auto options = std::make_shared<CurveCommand>();
  auto& command = line.subcommand(
      "curve",
      "Measures perplexity against active parameters, operations and time over routing policies.\n"
      "Example: dsmoe curve runs/quickstart --data data/tinyshakespeare/valid.txt --policies "
      "all top_k=2 threshold=0.48");
  add_model_options(command, options->model);
  const auto data =
      command
          .option("--data", options->data, fmt::format("token shards, or a file of {}", kTextHelp))
          .path()
          .required();
  add_text_options(command, options->format, data);
  command.option("--policies",
                 options->policies,
                 "as for eval (default: all, top_k in powers of 2, thresholds)");
  command.option("--window", options->protocol.window, "as for eval");
  command.option("--stride", options->protocol.stride, "as for eval");
  command
      .option("--batch",
              options->batch,
              "windows per forward pass (default 8); changes the numbers of threshold_top_k")
      .range(1, 1 << 20);
  command.flag("--documents", options->protocol.documents, "as for eval");
  command.option("--plot", options->plot, "an SVG file to write").path();
  add_force_option(command, options->force);
  command.flag("--json", options->json, "one JSON object on standard output");
  command.on_run([options] { return run_functions().curve(*options); });
}

}  // namespace dsmoe
