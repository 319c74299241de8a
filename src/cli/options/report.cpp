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
      "Write one HTML page of one or several runs, readable without a network. It shows losses, "
      "learning rate, throughput, expert load over time, active experts, sample texts, environment "
      "and config.\n"
      "Example: dsmoe report runs/quickstart runs/quickstart-dense --out report.html");
  command.option("runs", options->runs, "run directories").path().required();
  command.option("--curve", options->curve, "also plot what curve --json printed").path();
  command
      .option("--samples",
              options->samples,
              "show a text, such as generate printed, plain, gzip or zstd; - reads standard input; "
              "repeatable")
      .text_path()
      .one_value_each();
  command.option("-o,--out", options->out, "write the page here").path();
  add_force_option(command, options->force);
  add_json_option(command, options->json);
  command.on_run([options] { return run_functions().report(*options); });
}

}  // namespace dsmoe
