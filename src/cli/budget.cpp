#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include "cli/command_support.h"
#include "cli/commands.h"
#include "cli/eval_result.h"
#include "cli/text_options.h"
#include "common/error.h"
#include "common/log.h"
#include "common/standard_output.h"
#include "common/stop_signal.h"
#include "eval/routing_budget.h"
#include "infer/infer_bench.h"
#include "model/moe/batch_dependence.h"
#include "model/parameter_count.h"

namespace dsmoe {
namespace {

constexpr double kNotAsked = -1;

struct Options {
  ModelOptions model;
  std::string data;
  TextFormat format;
  double active_parameters = kNotAsked;
  double perplexity_rise = kNotAsked;
  double ms_per_token = kNotAsked;
  std::vector<std::string> candidates;
  int64_t tokens = 16384;
  int64_t batch = 8;
  std::string out;
  bool force = false;
  bool json = false;
};

struct Quality {
  double perplexity = 0;
  double active_parameters = 0;
};

// One checkpoint and text. Sensitivities come from some of the text's even windows, all that is
// reported from the odd ones.
class Bench {
 public:
  Bench(LoadedCheckpoint& loaded, const Options& options)
      : loaded_(loaded),
        text_(read_eval_text(options.data,
                             *loaded.tokenizer,
                             /*documents=*/false,
                             loaded.model->config().max_seq_len,
                             options.format)),
        execution_(parse_execution(options.model.execution)),
        batch_(options.batch) {
    int64_t n_tokens = 0;
    for (const auto& sequence : text_.sequences) n_tokens += static_cast<int64_t>(sequence.size());
    n_calibration_parts_ = 2 * std::max<int64_t>(n_tokens / 2 / options.tokens, 1);
  }

  const ModelConfig& config() const { return loaded_.model->config(); }
  const EvalText& text() const { return text_; }
  PerplexityOptions calibration() const { return part(0, n_calibration_parts_); }

  Quality measure(const RoutingPlan& plan, const PerplexityOptions& where) {
    auto options = where;
    options.plan = plan.with(execution_);
    const auto result = evaluate_perplexity(loaded_.model, text_, options);
    if (!result.complete) throw StoppedError("budget: stopped as asked");
    return {result.perplexity(), active_parameters(config(), result.usage.active_experts())};
  }
  Quality held_out(const RoutingPlan& plan) { return measure(plan, part(1, 2)); }

  // Of a decoding step of one sequence.
  double ms_per_token(const RoutingPlan& plan) {
    const int64_t n_steps = std::min<int64_t>(config().max_seq_len / 2, 16);
    const InferBenchOptions options{.prompt = 0,
                                    .generate = n_steps,
                                    .depth = n_steps,
                                    .repetitions = 7,
                                    .measure_bandwidth = false,
                                    .plan = plan.with(execution_),
                                    .compute_dtype = loaded_.compute_dtype};
    double best = INFINITY;
    for (const auto& round : run_infer_bench(loaded_.model, options).rounds) {
      best = std::min(best, round.decode_seconds / static_cast<double>(options.generate));
    }
    return 1e3 * best;
  }

 private:
  PerplexityOptions part(int64_t index, int64_t n_parts) const {
    return {.batch = batch_,
            .plan = RoutingPlan(RoutingPolicy::all()).with(execution_),
            .compute_dtype = loaded_.compute_dtype,
            .part = index,
            .n_parts = n_parts,
            .stop = stop_requested};
  }

  LoadedCheckpoint& loaded_;
  EvalText text_;
  Execution execution_;
  int64_t batch_;
  int64_t n_calibration_parts_ = 2;
};

std::vector<RoutingPolicy> candidates_of(const Options& options, const ModelConfig& config) {
  std::vector<RoutingPolicy> candidates;
  for (const auto& text : options.candidates) candidates.push_back(parse_routing_policy(text));
  if (!candidates.empty()) return candidates;
  const int64_t most = std::max(config.ffn.n_experts, config.attention.n_experts);
  for (int64_t k = 1; k < most; k += std::max<int64_t>(k / 2, 1)) {
    candidates.push_back(RoutingPolicy::top_k(k));
  }
  for (const double threshold : {0.2, 0.3, 0.5, 0.8, 1.2, 1.6, 2.4}) {
    candidates.push_back(RoutingPolicy::threshold(threshold));
  }
  return candidates;
}

RoutingPlan uniform_top_k(const ModelConfig& config, int64_t moe, int64_t moa) {
  const auto of = [](int64_t k, int64_t n) {
    return k < n ? RoutingPolicy::top_k(k) : RoutingPolicy::all();
  };
  return RoutingPlan(LayerRouting{.moa = of(moa, config.attention.n_experts),
                                  .moe = of(moe, config.ffn.n_experts)});
}

// The best uniform top_k, of every pair for both kinds, within as many active parameters.
std::optional<std::pair<RoutingPlan, Quality>> best_uniform(Bench& bench, double parameters) {
  const auto& config = bench.config();
  const int64_t most_moe = config.has_ffn_experts() ? config.ffn.n_experts : 1;
  const bool has_moa = config.attention.kind == AttentionKind::kMoa;
  const int64_t most_moa = has_moa ? config.attention.n_experts : 1;
  const auto n_layers = static_cast<size_t>(config.n_layers);
  std::optional<std::pair<RoutingPlan, Quality>> best;
  for (int64_t moa = 1; moa <= most_moa; ++moa) {
    for (int64_t moe = most_moe; moe >= 1; --moe) {
      ActiveExperts active;
      if (config.has_ffn_experts()) active.moe.assign(n_layers, static_cast<double>(moe));
      if (has_moa) active.moa.assign(n_layers, static_cast<double>(moa));
      if (active_parameters(config, active) > parameters) continue;
      // More experts of a kind are not worse, so the most that fit beside `moa` stand for them.
      const auto plan = uniform_top_k(config, moe, moa);
      const auto quality = bench.held_out(plan);
      if (!best || quality.perplexity < best->second.perplexity) best.emplace(plan, quality);
      break;
    }
  }
  return best;
}

// The lowest threshold for all layers that is within as many active parameters.
std::pair<RoutingPlan, Quality> uniform_threshold(Bench& bench, double parameters) {
  double beyond = 0.0;
  double within = 1.0;
  const auto measure = [&](double threshold) {
    return bench.held_out(RoutingPolicy::threshold(threshold));
  };
  Quality quality = measure(within);
  for (; quality.active_parameters > parameters && within < 64; quality = measure(within)) {
    beyond = std::exchange(within, 2 * within);
  }
  for (int i = 0; i < 7; ++i) {
    const double middle = 0.5 * (beyond + within);
    const auto at_middle = measure(middle);
    if (at_middle.active_parameters > parameters) {
      beyond = middle;
    } else {
      within = middle;
      quality = at_middle;
    }
  }
  return {RoutingPolicy::threshold(within), quality};
}

// From plans along the way.
TimeModel fit_time(Bench& bench, const std::vector<BudgetPlan>& steps) {
  constexpr size_t kPoints = 7;
  std::vector<TimedExperts> points;
  for (size_t i = 0; i < kPoints; ++i) {
    const auto& step = steps[i * (steps.size() - 1) / (kPoints - 1)];
    points.push_back({step.experts, bench.ms_per_token(step.plan)});
  }
  return fit_time_model(points);
}

const BudgetPlan& choose(const Options& options,
                         Bench& bench,
                         const std::vector<BudgetPlan>& steps,
                         const TimeModel& time) {
  if (options.active_parameters >= 0) return within_parameters(steps, options.active_parameters);
  if (options.perplexity_rise >= 0) {
    const auto measure = [&](const RoutingPlan& plan) {
      return std::log(bench.measure(plan, bench.calibration()).perplexity);
    };
    return within_nats(
        steps, measure(steps.front().plan) + std::log1p(options.perplexity_rise), measure);
  }
  return within_time(steps, time, options.ms_per_token);
}

void check(const Options& options) {
  const int n_asked = (options.active_parameters >= 0 ? 1 : 0) +
                      (options.perplexity_rise >= 0 ? 1 : 0) + (options.ms_per_token >= 0 ? 1 : 0);
  if (n_asked == 1) return;
  throw Error(
      fmt::format("budget: expected one of --active-parameters, --perplexity-rise and "
                  "--ms-per-token, got {}",
                  n_asked));
}

nlohmann::ordered_json report_of(Bench& bench, const BudgetPlan& chosen, const TimeModel& time) {
  const auto whole = bench.held_out(RoutingPolicy::all());
  const auto plan = bench.held_out(chosen.plan);
  nlohmann::ordered_json json = {
      {"routing", plan_to_yaml(chosen.plan, bench.config())},
      {"depends_on_batch", depends_on_batch(chosen.plan, bench.config())},
      {"perplexity", plan.perplexity},
      {"perplexity_all", whole.perplexity},
      {"active_parameters", plan.active_parameters},
      {"active_parameters_all", whole.active_parameters},
      {"predicted_active_parameters", chosen.parameters}};
  if (const auto uniform = best_uniform(bench, plan.active_parameters)) {
    json["uniform"] = uniform->first.to_string();
    json["uniform_perplexity"] = uniform->second.perplexity;
    json["uniform_active_parameters"] = uniform->second.active_parameters;
  }
  const auto [threshold, at_threshold] = uniform_threshold(bench, plan.active_parameters);
  json["uniform_threshold"] = threshold.to_string();
  json["uniform_threshold_perplexity"] = at_threshold.perplexity;
  json["uniform_threshold_active_parameters"] = at_threshold.active_parameters;
  const double predicted = time.ms(chosen.experts);
  const double measured = bench.ms_per_token(chosen.plan);
  json["predicted_ms_per_token"] = predicted;
  json["ms_per_token"] = measured;
  json["ms_per_token_error"] = predicted / measured - 1;
  json["ms_per_token_all"] = bench.ms_per_token(RoutingPolicy::all());
  json["time_model"] = {{"fixed_ms", time.fixed_ms},
                        {"ms_per_moe_expert", time.ms_per_moe_expert},
                        {"ms_per_moa_expert", time.ms_per_moa_expert}};
  return json;
}

void print_text(const nlohmann::ordered_json& json) {
  const auto number = [&](const char* key) { return json[key].get<double>(); };
  print_out("{}", json["routing"].get<std::string>());
  print_out("perplexity on held-out windows {:.4f}, {:+.2f} % over every expert ({:.4f})\n",
            number("perplexity"),
            100 * (number("perplexity") / number("perplexity_all") - 1),
            number("perplexity_all"));
  print_out("active parameters {:.0f} of {:.0f} ({:.0f} predicted)\n",
            number("active_parameters"),
            number("active_parameters_all"),
            number("predicted_active_parameters"));
  const auto compare = [&](const std::string& key) {
    if (!json.contains(key)) return;
    print_out("within them, one policy for all layers: {}, {:.4f} with {:.0f}\n",
              json[key].get<std::string>(),
              json[key + "_perplexity"].get<double>(),
              json[key + "_active_parameters"].get<double>());
  };
  compare("uniform");
  compare("uniform_threshold");
  print_out(
      "decoding takes {:.4g} ms per token ({:.4g} predicted, {:+.1f} %), {:.4g} with every "
      "expert\n",
      number("ms_per_token"),
      number("predicted_ms_per_token"),
      100 * number("ms_per_token_error"),
      number("ms_per_token_all"));
}

int budget(const Options& options) {
  check(options);
  if (!options.out.empty()) check_output_file(options.out, existing_of(options.force));
  auto loaded = load_checkpoint(options.model);
  if (options.ms_per_token >= 0 && !loaded.model->device().is_cpu()) {
    throw Error("--ms-per-token: expected --device cpu, where decoding is measured");
  }
  Bench bench(loaded, options);
  const auto candidates = candidates_of(options, bench.config());
  install_stop_signal();
  try {
    const auto sensitivity = measure_sensitivity(
        loaded.model, bench.text(), candidates, bench.calibration(), [](int64_t done, int64_t all) {
          print_note(fmt::format("budget: {} of {} sensitivities\n", done, all));
        });
    const auto steps = plan_steps(sensitivity);
    const auto time = fit_time(bench, steps);
    const auto& chosen = choose(options, bench, steps, time);
    const auto json = report_of(bench, chosen, time);
    if (!options.out.empty()) {
      write_output_file(
          posix_io(), options.out, json["routing"].get<std::string>(), existing_of(options.force));
    }
    if (options.json) {
      print_json(json);
    } else {
      print_text(json);
      if (json["depends_on_batch"].get<bool>()) print_batch_dependence(options.batch);
    }
  } catch (const StoppedError&) {
    return kExitStopped;
  }
  return 0;
}

}  // namespace

void add_budget_command(CommandLine& line) {
  auto options = std::make_shared<Options>();
  auto& command = line.subcommand(
      "budget",
      "Finds how many experts each layer may leave out for a target, and writes them as a routing\n"
      "file. Half of the text's windows calibrate, the others are held out for what is reported.\n"
      "Example: dsmoe budget runs/quickstart --data data/tinyshakespeare/valid.txt "
      "--perplexity-rise 0.01 --out routing.yaml");
  add_model_options(command, options->model);
  const auto data =
      command
          .option("--data", options->data, fmt::format("token shards, or a file of {}", kTextHelp))
          .path()
          .required();
  add_text_options(command, options->format, data);
  const auto target = [&](const char* name, double& value, const char* text) {
    command.option(name, value, text).range(0.0, 1e15);
  };
  target("--active-parameters", options->active_parameters, "at most so many, not of embeddings");
  target(
      "--perplexity-rise", options->perplexity_rise, "at most by this share, 0.01 for one percent");
  target("--ms-per-token", options->ms_per_token, "at most, decoding one sequence");
  command.option("--candidates",
                 options->candidates,
                 "policies a layer may take (default: top_k and thresholds)");
  command.option("--tokens", options->tokens, "about so many measure each sensitivity")
      .range(int64_t{1}, int64_t{1} << 40);
  command
      .option("--batch",
              options->batch,
              "windows per forward pass (default 8); changes the numbers of threshold_top_k")
      .range(1, 1 << 20);
  command.option("--out", options->out, "file to write, for --policy routing=FILE").path();
  add_force_option(command, options->force);
  command.flag("--json", options->json, "one JSON object on standard output");
  command.on_run([options] { return budget(*options); });
}

}  // namespace dsmoe
