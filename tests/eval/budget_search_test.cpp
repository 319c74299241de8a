#include "eval/budget_search.h"

#include <catch2/catch.hpp>

#include "common/error.h"
#include "model/parameter_count.h"
#include "support/tiny_model.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;

// More sequences than one batch of the two halves.
EvalText search_text() {
  EvalText text;
  text.sequences.emplace_back();
  for (int32_t i = 0; i < 400; ++i) text.sequences.back().push_back(i * i % 251);
  text.n_bytes = 400;
  return text;
}

// A millisecond, and one for each expert of a top_k plan; of thresholds and `all` every expert's.
double counted_ms(const RoutingPlan& plan) {
  const auto config = tiny_model_config();
  double ms = 1;
  for (size_t layer = 0; layer < static_cast<size_t>(config.n_layers); ++layer) {
    const auto& [moa, moe] = plan.layer(layer);
    const auto count = [](const RoutingPolicy& policy, int64_t n_experts) {
      return static_cast<double>(policy.selection == Selection::kTopK ? policy.k : n_experts);
    };
    ms += count(moa, config.attention.n_experts) + count(moe, config.ffn.n_experts);
  }
  return ms;
}

BudgetOptions options_of(const BudgetTarget& target) {
  return {.target = target,
          .candidates = {RoutingPolicy::top_k(1), RoutingPolicy::top_k(2)},
          .calibration_tokens = 100,
          .batch = 4,
          .measure_ms = counted_ms};
}

double measured_perplexity(Transformer& model, const EvalText& text, const RoutingPlan& plan) {
  PerplexityOptions held_out{.batch = 4, .plan = plan, .part = 1, .n_parts = 2};
  return evaluate_perplexity(model, text, held_out).perplexity();
}

}  // namespace

TEST_CASE("search_budget: the plan keeps to the parameters, and its numbers are measured ones") {
  auto model = make_tiny_model();
  const auto text = search_text();
  const auto& config = model->config();
  const double most = 0.8 * active_parameters(config, all_experts(config));
  const auto result = search_budget(model, text, options_of({.active_parameters = most}));
  CHECK(result.predicted_active_parameters <= most);
  CHECK(result.chosen.active_parameters == Approx(result.predicted_active_parameters));
  CHECK(result.chosen.perplexity == measured_perplexity(model, text, result.chosen.plan));
  CHECK(result.all.perplexity == measured_perplexity(model, text, RoutingPolicy::all()));
  CHECK(result.routing == plan_to_yaml(result.chosen.plan, config));
  CHECK(result.ms == counted_ms(result.chosen.plan));
  CHECK(result.ms_all == counted_ms(RoutingPolicy::all()));
  CHECK_FALSE(result.depends_on_batch);
  // Time is linear in the experts of top_k plans.
  CHECK(result.predicted_ms == Approx(result.ms).epsilon(1e-6));
}

TEST_CASE("search_budget: the plans it is compared with have no more parameters") {
  auto model = make_tiny_model();
  const auto text = search_text();
  const auto& config = model->config();
  const auto all = active_parameters(config, all_experts(config));
  const auto result = search_budget(model, text, options_of({.active_parameters = 0.7 * all}));
  REQUIRE(result.uniform);
  CHECK(result.uniform->active_parameters <= result.chosen.active_parameters);
  CHECK(result.uniform->perplexity == measured_perplexity(model, text, result.uniform->plan));
  CHECK(result.uniform_threshold.active_parameters <= result.chosen.active_parameters);
  CHECK(result.uniform_threshold.plan.layer(0).moe.selection == Selection::kThreshold);
  // No uniform top_k within as many parameters is better.
  for (int64_t moe = 1; moe <= config.ffn.n_experts; ++moe) {
    for (int64_t moa = 1; moa <= config.attention.n_experts; ++moa) {
      const RoutingPlan plan(
          LayerRouting{.moa = RoutingPolicy::top_k(moa), .moe = RoutingPolicy::top_k(moe)});
      const ActiveExperts active{.moe = {static_cast<double>(moe), static_cast<double>(moe)},
                                 .moa = {static_cast<double>(moa), static_cast<double>(moa)}};
      const bool is_greatest =
          moe == config.ffn.n_experts ||
          active_parameters(config,
                            {.moe = {static_cast<double>(moe + 1), static_cast<double>(moe + 1)},
                             .moa = active.moa}) > result.chosen.active_parameters;
      if (active_parameters(config, active) > result.chosen.active_parameters || !is_greatest) {
        continue;
      }
      CHECK(measured_perplexity(model, text, plan) >= result.uniform->perplexity - 1e-6);
    }
  }
}

TEST_CASE("search_budget: progress rises to its bound, which includes what is held out") {
  auto model = make_tiny_model();
  const auto text = search_text();
  for (const auto& target :
       {BudgetTarget{.perplexity_rise = 0.1}, BudgetTarget{.ms_per_token = 1e9}}) {
    auto options = options_of(target);
    int64_t last = 0;
    int64_t bound = 0;
    int64_t n_calls = 0;
    options.on_progress = [&](int64_t done, int64_t all) {
      CHECK(done >= last);
      CHECK((done < all || n_calls > 0));
      last = done;
      bound = all;
      ++n_calls;
    };
    search_budget(model, text, options);
    CHECK(last == bound);
    // 9 passes of sensitivity over 100 tokens, and 6 or more held out over 200.
    CHECK(last > 9 * 90 + 6 * 180);
  }
}

TEST_CASE("search_budget: held_out_tokens bounds what is reported, on odd windows") {
  auto model = make_tiny_model();
  const auto text = search_text();
  auto options = options_of({.active_parameters = 1e9});
  options.held_out_tokens = 50;
  const auto few = search_budget(model, text, options).all.perplexity;
  PerplexityOptions odd{.batch = 4, .part = 1, .n_parts = 8};  // 400 / 2 / 50 parts of the odd ones
  CHECK(few == evaluate_perplexity(model, text, odd).perplexity());
  options.held_out_tokens = 0;
  const auto every = search_budget(model, text, options).all.perplexity;
  CHECK(every == measured_perplexity(model, text, RoutingPolicy::all()));
  CHECK(few != every);
}

TEST_CASE("search_budget: a time and a rise are kept to") {
  auto model = make_tiny_model();
  const auto text = search_text();
  const double most = counted_ms(RoutingPolicy::all()) - 3;
  const auto timed = search_budget(model, text, options_of({.ms_per_token = most}));
  CHECK(timed.predicted_ms <= most);
  CHECK(timed.ms <= most + 1e-6);
  const auto exact = search_budget(model, text, options_of({.perplexity_rise = 1e9}));
  CHECK(exact.chosen.plan.layer(0).moe == RoutingPolicy::top_k(1));  // anything is allowed
  // Half of what the cheapest plan costs on the calibration windows.
  const auto calibrated = [&](const RoutingPlan& plan) {
    const PerplexityOptions windows{.batch = 4, .plan = plan, .part = 0, .n_parts = 4};
    return evaluate_perplexity(model, text, windows).perplexity();
  };
  const double least = calibrated(RoutingPolicy::all());
  const double rise = 0.5 * (calibrated(exact.chosen.plan) / least - 1);
  REQUIRE(rise > 0);
  auto options = options_of({.perplexity_rise = rise});
  options.held_out_tokens = options.calibration_tokens;  // a plan is chosen on as many windows
  const auto half = search_budget(model, text, options);
  CHECK(calibrated(half.chosen.plan) <= least * (1 + rise));
  CHECK(half.chosen.active_parameters < half.all.active_parameters);
  CHECK(half.chosen.active_parameters > exact.chosen.active_parameters);
  CHECK_THROWS_WITH(search_budget(model, text, options_of({.ms_per_token = 0.5})),
                    Contains("ms per token"));
}

TEST_CASE("search_budget: a sensitivity pass reads about calibration_tokens tokens") {
  auto model = make_tiny_model();
  const auto text = search_text();  // 400 tokens, half of them held out
  const auto& config = model->config();
  auto options =
      options_of({.active_parameters = active_parameters(config, all_experts(config)) - 1});
  options.candidates = {RoutingPolicy::threshold(0.5)};
  for (const int64_t n_parts : {2, 4}) {
    options.calibration_tokens = 400 / n_parts;
    const auto result = search_budget(model, text, options);
    const PerplexityOptions windows{
        .batch = 4, .plan = result.chosen.plan, .part = 0, .n_parts = n_parts};
    const auto usage = evaluate_perplexity(model, text, windows).usage;
    CHECK(result.predicted_active_parameters ==
          Approx(active_parameters(config, usage.active_experts())).epsilon(1e-9));
  }
}

TEST_CASE("search_budget: one target is expected, and a stop ends it") {
  auto model = make_tiny_model();
  const auto text = search_text();
  CHECK_THROWS_WITH(search_budget(model, text, options_of({})), Contains("got 0"));
  CHECK_THROWS_WITH(
      search_budget(model, text, options_of({.active_parameters = 1, .ms_per_token = 1})),
      Contains("got 2"));
  auto options = options_of({.perplexity_rise = 0.1});
  options.stop = [] { return true; };
  CHECK_THROWS_AS(search_budget(model, text, options), StoppedError);
}

TEST_CASE("budget_candidates: top_k up to the experts of the larger kind, and thresholds") {
  auto config = tiny_model_config();
  config.ffn.n_experts = 8;
  const auto candidates = budget_candidates(config);
  std::vector<int64_t> top_k;
  int64_t n_thresholds = 0;
  for (const auto& policy : candidates) {
    if (policy.selection == Selection::kTopK) top_k.push_back(policy.k);
    if (policy.selection == Selection::kThreshold) ++n_thresholds;
  }
  CHECK(top_k == std::vector<int64_t>{1, 2, 3, 4, 6});
  CHECK(n_thresholds == 7);
}

}  // namespace dsmoe
