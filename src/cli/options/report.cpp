#include "cli/options/report.h"

#include <memory>

#include "cli/commands.h"
#include "cli/options/model_options.h"
#include "cli/run_functions.h"

namespace dsmoe {

void add_report_command(CommandLine& line) {
  auto options = std::make_shared<ReportCommand>();
  auto& command = line.subcommand(
      "report",
      "Writes one HTML page of one or several runs, readable without a network: losses, learning\n"
      "rate, throughput, expert load over time, active experts, sample texts, environment, "
      "config.\n"
      "Example: dsmoe report runs/quickstart runs/quickstart-dense --out report.html");
  command.option("runs", options->runs, "run directories").path().required();
  command.option("--curve", options->curve, "what curve --json printed, to be plotted too").path();
  command
      .option("--samples",
              options->samples,
              "a text to be shown, such as generate printed, plain, gzip or zstd; repeatable")
      .path()
      .one_value_each();
  command.option("--out", options->out, "the page (default: report.html)").path();
  add_force_option(command, options->force);
  command.flag("--json", options->json, "one JSON object on standard output");
  command.on_run([options] { return run_functions().report(*options); });
}

}  // namespace dsmoe
