#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "cli/command_support.h"
#include "cli/eval_result.h"
#include "cli/options/curve.h"
#include "cli/run_functions.h"
#include "common/io.h"
#include "common/log.h"
#include "common/progress.h"
#include "common/standard_output.h"
#include "common/stop_signal.h"
#include "eval/curve.h"
#include "model/moe/batch_dependence.h"
#include "report/curve_plot.h"

namespace dsmoe {
namespace {

// Parsed and held against the model before the first is measured.
std::vector<RoutingPlan> plans_of(const CurveCommand& options, const ModelConfig& config) {
  const auto execution = parse_execution(options.model.execution);
  std::vector<RoutingPlan> plans;
  if (options.policies.empty()) {
    for (const auto& plan : curve_plans(config)) plans.push_back(plan.with(execution));
    return plans;
  }
  for (const auto& policy : options.policies) {
    plans.push_back(parse_routing_plan(policy).with(execution));
    validate_plan(plans.back(), config);
  }
  return plans;
}

void print_heading() {
  print_out("{:<28} {:>17} {:>7} {:>12} {:>12} {:>10} {:>9} {:>12}\n",
            "policy",
            "active parameters",
            "share",
            "MFLOP/token",
            "ms/token",
            "perplexity",
            "over all",
            "bits/byte");
}

void print_point(const CurvePoint& point) {
  print_out("{:<28} {:>17.0f} {:>6.1f}% {:>12.3f} {:>12.4f} {:>10.4f} {:>9} {:>12.4f}\n",
            point.plan.to_string(),
            point.active_parameters,
            100 * point.share,
            point.flops_per_token / 1e6,
            point.ms_per_token,
            point.quality.perplexity(),
            point.rise ? fmt::format("{:+.2f}%", 100 * *point.rise) : "-",
            point.quality.bits_per_byte());
}

std::string plot_of(const std::vector<CurvePoint>& points) {
  std::vector<PolicyPoint> drawn;
  for (const auto& point : points) {
    drawn.push_back({point.plan.to_string(), point.share, point.quality.perplexity()});
  }
  return curve_to_svg(drawn);
}

nlohmann::ordered_json to_json(const CurvePoint& point, const EvalReport& report) {
  auto entry = to_json(report);
  entry["flops_per_token"] = point.flops_per_token;
  entry["ms_per_token"] = point.ms_per_token;
  entry["share"] = point.share;
  entry["rise"] = point.rise ? nlohmann::ordered_json(*point.rise) : nullptr;
  return entry;
}

}  // namespace

int run_curve(const CurveCommand& options) {
  if (!options.plot.empty()) check_output_file(options.plot, existing_of(options.force));
  auto loaded = load_checkpoint(options.model);
  const auto& config = loaded.model->config();
  const auto plans = plans_of(options, config);
  const auto text = read_eval_text(options.data,
                                   *loaded.tokenizer,
                                   options.protocol.documents,
                                   config.max_seq_len,
                                   options.format);
  install_stop_signal();
  if (!options.json) {
    print_weights(loaded);
    print_heading();
  }
  const auto bar = progress_on_terminal("curve");
  size_t n_done = 0;
  const auto points = measure_curve(
      loaded.model,
      text,
      plans,
      {.window = options.protocol.window,
       .stride = options.protocol.stride,
       .batch = options.batch,
       .compute_dtype = loaded.compute_dtype,
       .stop =
           [&options] {
             const bool is_in_vain = options.plot.empty() && standard_output().is_lost();
             return stop_requested() || is_in_vain;
           },
       .on_progress =
           [&](int64_t done, int64_t all) {
             const auto n_before = static_cast<int64_t>(n_done);
             if (bar) bar->show(n_before * all + done, static_cast<int64_t>(plans.size()) * all);
           }},
      [&](const CurvePoint& point) {
        ++n_done;
        if (bar) bar->clear();
        if (!options.json) print_point(point);
        // A log says which policies are done; a terminal has the bar.
        if (!bar) print_note(fmt::format("curve: {} of {} policies\n", n_done, plans.size()));
      });
  const bool complete = points.size() == plans.size();
  if (!options.plot.empty()) {
    write_output_file(posix_io(), options.plot, plot_of(points), existing_of(options.force));
  }
  const bool depends = std::any_of(plans.begin(), plans.end(), [&](const RoutingPlan& plan) {
    return depends_on_batch(plan, config);
  });
  if (options.json) {
    auto entries = nlohmann::ordered_json::array();
    for (const auto& point : points) {
      entries.push_back(to_json(
          point,
          make_eval_report(
              point.quality, loaded, point.plan, options.model, options.protocol, options.batch)));
    }
    print_json({{"points", entries}, {"complete", complete}});
  } else if (depends) {
    print_batch_dependence(options.batch);
  }
  // A lost standard output ends it early too, which is a failure and no stop.
  return stop_requested() && !complete ? kExitStopped : 0;
}

}  // namespace dsmoe
