#include "cli/options/curve.h"

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
      "Measure perplexity against active parameters, operations and time over routing policies.\n"
      "Example: dsmoe curve runs/quickstart --data data/tinyshakespeare/valid.txt --policies "
      "all top_k=2 threshold=0.48");
  command.group("Text");
  const auto data =
      command.option("--data", options->data, text_help("score")).text_path().required();
  add_text_options(command, options->format, data);
  add_protocol_options(command, options->protocol, options->batch);
  command.group("Policies");
  command.option("--policies", options->policies, "measure these; see --policy")
      .type("POLICY")
      .default_text("all, top_k in powers of 2, thresholds");
  add_model_options(command, options->model);
  command.group("Output");
  command.option("--plot", options->plot, "write a plot to this SVG file").path();
  add_force_option(command, options->force);
  add_json_option(command, options->json);
  command.on_run([options] { return run_functions().curve(*options); });
}

}  // namespace dsmoe
