#include <fmt/format.h>

#include <memory>

#include "cli/command_support.h"
#include "cli/commands.h"
#include "common/standard_output.h"
#include "data/text_lines.h"
#include "formats/json_limits.h"
#include "report/run_report.h"

namespace dsmoe {
namespace {

constexpr size_t kMaxCurveBytes = size_t{1} << 28;
constexpr size_t kMaxSampleBytes = size_t{1} << 18;

struct Options {
  std::vector<std::string> runs;
  std::string curve;
  std::vector<std::string> samples;
  std::string out = "report.html";
  bool force = false;
  bool json = false;
};

int report(const Options& options) {
  auto& io = posix_io();
  check_output_file(options.out, existing_of(options.force));
  std::vector<RunRecord> runs;
  for (const auto& run : options.runs) runs.push_back(read_run(io, run));
  nlohmann::json curve;
  if (!options.curve.empty()) {
    curve = parse_json(read_file(io, options.curve, kMaxCurveBytes), options.curve, kMaxCurveBytes);
  }
  std::vector<TextSample> samples;
  for (const auto& path : options.samples) {
    samples.push_back({.name = path, .text = read_text_file(io, path, kMaxSampleBytes)});
  }
  write_output_file(
      io, options.out, runs_to_html(runs, curve, samples), existing_of(options.force));
  if (options.json) {
    print_json({{"path", options.out}});
  } else {
    print_out("wrote {}\n", options.out);
  }
  return 0;
}

}  // namespace

void add_report_command(CommandLine& line) {
  auto options = std::make_shared<Options>();
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
  command.on_run([options] { return report(*options); });
}

}  // namespace dsmoe
