#include <fmt/format.h>

#include "cli/command_support.h"
#include "cli/options/report.h"
#include "cli/run_functions.h"
#include "common/standard_output.h"
#include "data/text_lines.h"
#include "formats/json_limits.h"
#include "report/run_report.h"

namespace dsmoe {
namespace {

constexpr size_t kMaxCurveBytes = size_t{1} << 28;
constexpr size_t kMaxSampleBytes = size_t{1} << 18;

}  // namespace

int run_report(const ReportCommand& options) {
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

}  // namespace dsmoe
