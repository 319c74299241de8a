#include "eval/budget_search.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "common/error.h"
#include "model/moe/batch_dependence.h"
#include "model/parameter_count.h"

namespace dsmoe {
namespace {

constexpr int kThresholdHalvings = 7;
constexpr size_t kTimedPlans = 7;

// One model and text, cut into windows that calibrate and windows that are held out.
class Measurements {
 public:
  Measurements(Transformer& model, const EvalText& text, const BudgetOptions& options)
      : model_(model), text_(text), options_(options) {
    for (const auto& sequence : text_.sequences) n_tokens_ += static_cast<int64_t>(sequence.size());
    n_calibration_parts_ = parts_of(options.calibration_tokens);
    n_held_out_parts_ = options.held_out_tokens > 0 ? parts_of(options.held_out_tokens) : 2;
  }

  const ModelConfig& config() const { return model_->config(); }
  PerplexityOptions calibration() { return part(0, n_calibration_parts_); }
  // To choose a plan by its perplexity few tokens are too noisy: as many as are held out.
  PerplexityOptions choice() { return part(0, n_choice_parts()); }

  MeasuredPlan measure(const RoutingPlan& plan, PerplexityOptions where) {
    where.plan = plan.with(options_.execution);
    const auto result = evaluate_perplexity(model_, text_, where);
    if (!result.complete) throw StoppedError("budget: stopped as asked");
    return {plan, result.perplexity(), active_parameters(config(), result.usage.active_experts())};
  }
  MeasuredPlan held_out(const RoutingPlan& plan) {
    return measure(plan, part(1, n_held_out_parts_));
  }

  // Adds passes to the estimate of all work.
  void expect_calibrations(int64_t n) { expected_ += n * (n_tokens_ / n_calibration_parts_); }
  void expect_choices(int64_t n) { expected_ += n * (n_tokens_ / n_choice_parts()); }
  void expect_held_out(int64_t n) { expected_ += n * (n_tokens_ / n_held_out_parts_); }
  void finish() const {
    if (options_.on_progress) options_.on_progress(scored_, scored_);
  }

 private:
  int64_t n_choice_parts() const { return std::min(n_calibration_parts_, n_held_out_parts_); }

  // Of the even or the odd windows as many parts as give about so many tokens.
  int64_t parts_of(int64_t n_tokens) const {
    return 2 * std::max<int64_t>(n_tokens_ / 2 / n_tokens, 1);
  }

  PerplexityOptions part(int64_t index, int64_t n_parts) {
    const auto n_part_tokens = static_cast<double>(n_tokens_ / n_parts);
    return {.batch = options_.batch,
            .plan = RoutingPlan(RoutingPolicy::all()).with(options_.execution),
            .compute_dtype = options_.compute_dtype,
            .part = index,
            .n_parts = n_parts,
            .stop = options_.stop,
            .on_progress = [this, n_part_tokens](int64_t done, int64_t all) {
              const double share = static_cast<double>(done) / static_cast<double>(all);
              const auto tokens = static_cast<int64_t>(share * n_part_tokens);
              if (options_.on_progress) {
                // The estimate may be too low; the bar then waits just before its end.
                options_.on_progress(scored_ + tokens, std::max(expected_, scored_ + tokens + 1));
              }
              if (done == all) scored_ += tokens;
            }};
  }

  Transformer& model_;
  const EvalText& text_;
  const BudgetOptions& options_;
  int64_t n_tokens_ = 0;
  int64_t n_calibration_parts_ = 2;
  int64_t n_held_out_parts_ = 2;
  int64_t scored_ = 0;
  int64_t expected_ = 0;
};

RoutingPlan uniform_top_k(const ModelConfig& config, int64_t moe, int64_t moa) {
  const auto of = [](int64_t k, int64_t n) {
    return k < n ? RoutingPolicy::top_k(k) : RoutingPolicy::all();
  };
  return RoutingPlan(LayerRouting{.moa = of(moa, config.attention.n_experts),
                                  .moe = of(moe, config.ffn.n_experts)});
}

// The best uniform top_k, of every pair for both kinds, within as many active parameters.
std::optional<MeasuredPlan> best_uniform(Measurements& measurements, double parameters) {
  const auto& config = measurements.config();
  const int64_t most_moe = config.has_ffn_experts() ? config.ffn.n_experts : 1;
  const bool has_moa = config.attention.kind == AttentionKind::kMoa;
  const int64_t most_moa = has_moa ? config.attention.n_experts : 1;
  const auto n_layers = static_cast<size_t>(config.n_layers);
  std::optional<MeasuredPlan> best;
  for (int64_t moa = 1; moa <= most_moa; ++moa) {
    for (int64_t moe = most_moe; moe >= 1; --moe) {
      ActiveExperts active;
      if (config.has_ffn_experts()) active.moe.assign(n_layers, static_cast<double>(moe));
      if (has_moa) active.moa.assign(n_layers, static_cast<double>(moa));
      if (active_parameters(config, active) > parameters) continue;
      // More experts of a kind are not worse: only the greatest number that fits is measured.
      const auto measured = measurements.held_out(uniform_top_k(config, moe, moa));
      if (!best || measured.perplexity < best->perplexity) best = measured;
      break;
    }
  }
  return best;
}

// The lowest threshold for all layers that is within as many active parameters.
MeasuredPlan best_threshold(Measurements& measurements, double parameters) {
  double beyond = 0.0;
  double within = 1.0;
  const auto measure = [&](double threshold) {
    return measurements.held_out(RoutingPolicy::threshold(threshold));
  };
  auto best = measure(within);
  for (; best.active_parameters > parameters && within < 64; best = measure(within)) {
    beyond = std::exchange(within, 2 * within);
  }
  for (int i = 0; i < kThresholdHalvings; ++i) {
    const double middle = 0.5 * (beyond + within);
    const auto at_middle = measure(middle);
    if (at_middle.active_parameters > parameters) {
      beyond = middle;
    } else {
      within = middle;
      best = at_middle;
    }
  }
  return best;
}

// Fits measured times of plans between the first step and the last.
TimeModel fit_time(const std::vector<BudgetPlan>& steps, const BudgetOptions& options) {
  std::vector<TimedExperts> points;
  for (size_t i = 0; i < kTimedPlans; ++i) {
    const auto& step = steps[i * (steps.size() - 1) / (kTimedPlans - 1)];
    points.push_back({step.experts, options.measure_ms(step.plan)});
  }
  return fit_time_model(points);
}

const BudgetPlan& choose(const BudgetTarget& target,
                         Measurements& measurements,
                         const std::vector<BudgetPlan>& steps,
                         const TimeModel& time) {
  if (target.active_parameters) return within_parameters(steps, *target.active_parameters);
  if (target.ms_per_token) return within_time(steps, time, *target.ms_per_token);
  const auto measure = [&](const RoutingPlan& plan) {
    return std::log(measurements.measure(plan, measurements.choice()).perplexity);
  };
  const double least = measure(steps.front().plan);
  return within_nats(steps, least + std::log1p(*target.perplexity_rise), measure);
}

}  // namespace

void BudgetTarget::validate() const {
  const int n_asked =
      (active_parameters ? 1 : 0) + (perplexity_rise ? 1 : 0) + (ms_per_token ? 1 : 0);
  if (n_asked == 1) return;
  throw Error(
      fmt::format("budget: expected one of --active-parameters, --perplexity-rise and "
                  "--ms-per-token, got {}",
                  n_asked));
}

std::vector<RoutingPolicy> budget_candidates(const ModelConfig& config) {
  std::vector<RoutingPolicy> candidates;
  const int64_t most = std::max(config.ffn.n_experts, config.attention.n_experts);
  for (int64_t k = 1; k < most; k += std::max<int64_t>(k / 2, 1)) {
    candidates.push_back(RoutingPolicy::top_k(k));
  }
  for (const double threshold : {0.2, 0.3, 0.5, 0.8, 1.2, 1.6, 2.4}) {
    candidates.push_back(RoutingPolicy::threshold(threshold));
  }
  return candidates;
}

BudgetResult search_budget(Transformer& model, const EvalText& text, const BudgetOptions& options) {
  options.target.validate();
  const auto& config = model->config();
  Measurements measurements(model, text, options);
  const auto candidates =
      options.candidates.empty() ? budget_candidates(config) : options.candidates;
  const int64_t n_moa =
      config.attention.kind == AttentionKind::kMoa ? config.attention.n_experts : 1;
  // Held out: the plan, every expert, the best top_k beside each count of attention experts, and
  // thresholds from 1 down.
  measurements.expect_calibrations(1 + n_sensitivity_passes(config, candidates));
  measurements.expect_held_out(2 + n_moa + 1 + kThresholdHalvings);
  const auto sensitivity = measure_sensitivity(model, text, candidates, measurements.calibration());
  const auto steps = plan_steps(sensitivity);
  if (options.target.perplexity_rise) {
    measurements.expect_choices(1 + static_cast<int64_t>(std::ceil(std::log2(steps.size()))));
  }
  const auto time = fit_time(steps, options);
  const auto& chosen = choose(options.target, measurements, steps, time);
  BudgetResult result{.chosen = {},
                      .all = measurements.held_out(RoutingPolicy::all()),
                      .uniform = {},
                      .uniform_threshold = {},
                      .predicted_active_parameters = chosen.parameters,
                      .predicted_ms = time.ms(chosen.experts),
                      .time = time,
                      .routing = plan_to_yaml(chosen.plan, config),
                      .depends_on_batch = depends_on_batch(chosen.plan, config)};
  result.chosen = measurements.held_out(chosen.plan);
  const double parameters = result.chosen.active_parameters;
  result.uniform = best_uniform(measurements, parameters);
  result.uniform_threshold = best_threshold(measurements, parameters);
  result.ms = options.measure_ms(chosen.plan);
  result.ms_all = options.measure_ms(RoutingPolicy::all());
  measurements.finish();
  return result;
}

}  // namespace dsmoe
