#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <optional>

#include "cli/command_support.h"
#include "cli/eval_result.h"
#include "cli/options/budget.h"
#include "cli/run_functions.h"
#include "common/error.h"
#include "common/progress.h"
#include "common/standard_output.h"
#include "common/stop_signal.h"
#include "eval/budget_search.h"
#include "infer/infer_bench.h"

namespace dsmoe {
namespace {

BudgetTarget target_of(const BudgetCommand& options) {
  BudgetTarget target{.active_parameters = options.active_parameters,
                      .ms_per_token = options.ms_per_token};
  if (!options.perplexity_rise.empty()) {
    target.perplexity_rise = parse_share_option("--perplexity-rise", options.perplexity_rise);
  }
  return target;
}

// Of a decoding step of one sequence.
double measure_ms(LoadedCheckpoint& loaded, const RoutingPlan& plan) {
  const int64_t n_steps = std::min<int64_t>(loaded.model->config().max_seq_len / 2, 16);
  const auto result = run_infer_bench(loaded.model,
                                      {.prompt = 0,
                                       .generate = n_steps,
                                       .depth = n_steps,
                                       .repetitions = 7,
                                       .measure_bandwidth = false,
                                       .plan = plan,
                                       .compute_dtype = loaded.compute_dtype});
  return 1e3 * result.least_decode_seconds() / static_cast<double>(n_steps);
}

BudgetOptions search_options(const BudgetCommand& options,
                             LoadedCheckpoint& loaded,
                             ProgressBar* bar) {
  const auto execution = parse_execution(options.model.execution);
  BudgetOptions search{.target = target_of(options),
                       .calibration_tokens = options.tokens,
                       .held_out_tokens = options.held_out_tokens,
                       .batch = options.batch,
                       .execution = execution,
                       .compute_dtype = loaded.compute_dtype,
                       .measure_ms =
                           [&loaded, execution](const RoutingPlan& plan) {
                             return measure_ms(loaded, plan.with(execution));
                           },
                       .stop = stop_requested};
  if (bar) search.on_progress = [bar](int64_t done, int64_t all) { bar->show(done, all); };
  for (const auto& text : options.candidates) {
    search.candidates.push_back(parse_routing_policy(text));
  }
  return search;
}

nlohmann::ordered_json to_json(const BudgetResult& result, const std::string& dtype) {
  nlohmann::ordered_json json = {
      {"routing", result.routing},
      {"depends_on_batch", result.depends_on_batch},
      {"perplexity", result.chosen.perplexity},
      {"perplexity_all", result.all.perplexity},
      {"active_parameters", result.chosen.active_parameters},
      {"active_parameters_all", result.all.active_parameters},
      {"predicted_active_parameters", result.predicted_active_parameters}};
  const auto add = [&](const std::string& key, const MeasuredPlan& uniform) {
    json[key] = uniform.plan.to_string();
    json[key + "_perplexity"] = uniform.perplexity;
    json[key + "_active_parameters"] = uniform.active_parameters;
  };
  if (result.uniform) add("uniform", *result.uniform);
  add("uniform_threshold", result.uniform_threshold);
  json["dtype"] = dtype;
  json["predicted_ms_per_token"] = result.predicted_ms;
  json["ms_per_token"] = result.ms;
  json["ms_per_token_error"] = result.predicted_ms / result.ms - 1;
  json["ms_per_token_all"] = result.ms_all;
  json["time_model"] = {{"fixed_ms", result.time.fixed_ms},
                        {"ms_per_moe_expert", result.time.ms_per_moe_expert},
                        {"ms_per_moa_expert", result.time.ms_per_moa_expert}};
  return json;
}

void print_text(const BudgetResult& result, int64_t batch) {
  const auto& chosen = result.chosen;
  const auto& all = result.all;
  print_out("{}", result.routing);
  print_out("perplexity on held-out windows {:.4f}, {:+.2f} % over every expert ({:.4f})\n",
            chosen.perplexity,
            100 * (chosen.perplexity / all.perplexity - 1),
            all.perplexity);
  print_out("active parameters {:.0f} of {:.0f} ({:.0f} predicted)\n",
            chosen.active_parameters,
            all.active_parameters,
            result.predicted_active_parameters);
  const auto compare = [](const MeasuredPlan& uniform) {
    print_out("within them, one policy for all layers: {}, {:.4f} with {:.0f}\n",
              uniform.plan.to_string(),
              uniform.perplexity,
              uniform.active_parameters);
  };
  if (result.uniform) compare(*result.uniform);
  compare(result.uniform_threshold);
  print_out(
      "decoding takes {:.4g} ms per token ({:.4g} predicted, {:+.1f} %), {:.4g} with every "
      "expert\n",
      result.ms,
      result.predicted_ms,
      100 * (result.predicted_ms / result.ms - 1),
      result.ms_all);
  if (result.depends_on_batch) print_batch_dependence(batch);
}

}  // namespace

int run_budget(const BudgetCommand& options) {
  target_of(options).validate();
  if (!options.out.empty()) check_output_file(options.out, existing_of(options.force));
  auto loaded = load_checkpoint(options.model);
  if (target_of(options).ms_per_token && !loaded.model->device().is_cpu()) {
    throw Error("--ms-per-token: expected --device cpu, where decoding is measured");
  }
  const auto text = read_eval_text(options.data,
                                   *loaded.tokenizer,
                                   /*documents=*/false,
                                   loaded.model->config().max_seq_len,
                                   options.format);
  const auto bar = progress_on_terminal("budget");
  const auto search = search_options(options, loaded, bar.get());
  install_stop_signal();
  try {
    const auto result = search_budget(loaded.model, text, search);
    if (bar) bar->clear();
    if (!options.out.empty()) {
      write_output_file(posix_io(), options.out, result.routing, existing_of(options.force));
    }
    if (options.json) {
      print_json(to_json(result, loaded.dtype));
    } else {
      print_weights(loaded);
      print_text(result, options.batch);
    }
  } catch (const StoppedError&) {
    return kExitStopped;
  }
  return 0;
}

}  // namespace dsmoe
