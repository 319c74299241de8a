#include "eval/routing_budget.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <random>

#include "common/error.h"
#include "model/parameter_count.h"
#include "support/temporary_directory.h"
#include "support/tiny_model.h"

namespace dsmoe {
namespace {

EvalText budget_text() {
  EvalText text;
  text.sequences.emplace_back();
  for (int32_t i = 0; i < 150; ++i) text.sequences.back().push_back(i * i % 251);
  text.n_bytes = 150;
  return text;
}

// Layers whose choices give up more and more nats for each parameter.
Sensitivity random_sensitivity(uint64_t seed) {
  std::mt19937_64 random(seed);
  std::uniform_real_distribution<double> uniform(0.1, 1.0);
  Sensitivity sensitivity{
      .config = tiny_model_config(), .nats = 2.0, .parameters = 100.0, .experts = {}, .layers = {}};
  for (size_t layer = 0; layer < 2; ++layer) {
    for (const bool is_moa : {false, true}) {
      LayerChoices choices{.layer = layer, .is_moa = is_moa, .choices = {{{}, 2.0, 100.0}}};
      double price = 0.01 * uniform(random);
      for (int64_t k = 2; k > 0; --k) {
        auto next = choices.choices.back();
        const double saved = 5 * uniform(random);
        next.policy = RoutingPolicy::top_k(k);
        next.parameters -= saved;
        next.nats += price * saved;
        price += 0.01 * uniform(random);
        choices.choices.push_back(next);
      }
      sensitivity.layers.push_back(choices);
    }
  }
  return sensitivity;
}

// The lowest sum of nats over all combinations of choices within `parameters`.
double best_of_all(const Sensitivity& sensitivity, double parameters) {
  double best = INFINITY;
  for (int combination = 0; combination < 81; ++combination) {
    double nats = sensitivity.nats;
    double used = sensitivity.parameters;
    for (size_t i = 0, rest = static_cast<size_t>(combination); i < 4; ++i, rest /= 3) {
      const auto& choice = sensitivity.layers[i].choices[rest % 3];
      nats += choice.nats - sensitivity.nats;
      used += choice.parameters - sensitivity.parameters;
    }
    if (used <= parameters + 1e-9) best = std::min(best, nats);
  }
  return best;
}

}  // namespace

TEST_CASE("plan_steps: no combination is better with as many parameters") {
  const auto seed = GENERATE(1, 2, 3, 4, 5);
  const auto sensitivity = random_sensitivity(static_cast<uint64_t>(seed));
  const auto steps = plan_steps(sensitivity);
  REQUIRE(steps.size() == 9);
  CHECK(steps.front().nats == 2.0);
  for (size_t i = 0; i < steps.size(); ++i) {
    CAPTURE(seed, i);
    CHECK(steps[i].nats == Approx(best_of_all(sensitivity, steps[i].parameters)).epsilon(1e-12));
    if (i > 0) CHECK(steps[i].parameters < steps[i - 1].parameters);
  }
  CHECK(steps.back().plan.layer(1).moa == RoutingPolicy::top_k(1));
}

TEST_CASE("within_parameters, within_nats: the first and the last step that fit") {
  const auto steps = plan_steps(random_sensitivity(7));
  CHECK(&within_parameters(steps, 1e9) == &steps[0]);
  CHECK(&within_parameters(steps, steps[4].parameters) == &steps[4]);
  CHECK(&within_parameters(steps, steps[4].parameters - 1e-6) == &steps[5]);
  REQUIRE_THROWS_WITH(within_parameters(steps, 1.0), Catch::Contains("active parameters"));
  for (size_t last = 0; last < steps.size(); ++last) {
    int n_measured = 0;
    // Another loss than the predicted one, still rising along the way.
    const auto measure = [&](const RoutingPlan& plan) {
      ++n_measured;
      for (size_t i = 0; i < steps.size(); ++i) {
        if (steps[i].plan == plan) return 3.0 + static_cast<double>(i * i);
      }
      return 0.0;
    };
    const auto bound = 3.0 + static_cast<double>(last * last);
    CHECK(&within_nats(steps, bound, measure) == &steps[last]);
    CHECK(n_measured <= 4);
  }
}

TEST_CASE("plan_steps count experts by kind, within_time takes the first that is fast enough") {
  auto sensitivity = random_sensitivity(3);
  sensitivity.experts = {.moe = 10, .moa = 6};
  for (auto& layer : sensitivity.layers) {
    double experts = layer.is_moa ? 3 : 5;
    for (auto& choice : layer.choices) choice.experts = experts--;
  }
  const auto steps = plan_steps(sensitivity);
  for (const auto& step : steps) {
    ExpertCounts counts;
    for (size_t layer = 0; layer < 2; ++layer) {
      const auto given_up = [](const RoutingPolicy& policy) {
        return policy.selection == Selection::kAll ? 0.0 : 3.0 - static_cast<double>(policy.k);
      };
      counts.moe += 5 - given_up(step.plan.layer(layer).moe);
      counts.moa += 3 - given_up(step.plan.layer(layer).moa);
    }
    CHECK(step.experts.moe == counts.moe);
    CHECK(step.experts.moa == counts.moa);
  }
  const TimeModel time{.fixed_ms = 1, .ms_per_moe_expert = 0.1, .ms_per_moa_expert = 0.5};
  CHECK(&within_time(steps, time, 1e9) == &steps[0]);
  CHECK(&within_time(steps, time, time.ms(steps[5].experts) + 1e-9) == &steps[5]);
  REQUIRE_THROWS_WITH(within_time(steps, time, 1.0), Catch::Contains("ms per token"));
}

TEST_CASE("measure_sensitivity: each choice is an evaluation of its plan, hulls are convex") {
  auto model = make_tiny_model();
  const auto text = budget_text();
  const std::vector<RoutingPolicy> candidates = {RoutingPolicy::top_k(1),
                                                 RoutingPolicy::top_k(2),
                                                 RoutingPolicy::top_k(4),
                                                 RoutingPolicy::threshold(0.7)};
  const auto sensitivity = measure_sensitivity(model, text, candidates, {});
  // Attention has 3 experts: no top_k=4.
  CHECK(n_sensitivity_passes(model->config(), candidates) == 2 * (4 + 3));
  REQUIRE(sensitivity.layers.size() == 4);
  CHECK(sensitivity.experts.moe == 10);
  CHECK(sensitivity.experts.moa == 6);
  size_t n_kept = 0;
  for (const auto& layer : sensitivity.layers) {
    CAPTURE(layer.layer, layer.is_moa);
    CHECK(layer.choices.front().policy == RoutingPolicy::all());
    for (size_t i = 1; i < layer.choices.size(); ++i) {
      const auto& choice = layer.choices[i];
      std::vector<LayerRouting> plan(2);
      (layer.is_moa ? plan[layer.layer].moa : plan[layer.layer].moe) = choice.policy;
      const auto alone = evaluate_perplexity(model, text, {.plan = RoutingPlan(plan)});
      CHECK(choice.nats == alone.nats_per_token());
      const auto active = alone.usage.active_experts();
      CHECK(choice.parameters == active_parameters(model->config(), active));
      CHECK(choice.experts == (layer.is_moa ? active.moa : active.moe).at(layer.layer));
      CHECK(choice.parameters < layer.choices[i - 1].parameters);
      ++n_kept;
      if (i == 1) continue;
      const auto price = [&](size_t at) {
        const auto& from = layer.choices[at - 1];
        const auto& to = layer.choices[at];
        return (to.nats - from.nats) / (from.parameters - to.parameters);
      };
      CHECK(price(i) > price(i - 1));
    }
  }
  CHECK(n_kept >= 4);
}

TEST_CASE("measure_sensitivity: a dense model is refused, a stop ends it") {
  auto model = make_tiny_model();
  const auto text = budget_text();
  REQUIRE_THROWS_AS(measure_sensitivity(model, text, {RoutingPolicy::all()}, {}), Error);
  REQUIRE_THROWS_AS(
      measure_sensitivity(model, text, {RoutingPolicy::top_k(1)}, {.stop = [] { return true; }}),
      StoppedError);
}

TEST_CASE("plan_to_yaml: is read back as the same plan") {
  const std::vector<LayerRouting> layers = {
      {.moa = RoutingPolicy::top_k(2), .moe = RoutingPolicy::threshold(0.48, 3)},
      {.moa = RoutingPolicy::all(), .moe = RoutingPolicy::top_k(1)}};
  const TemporaryDirectory directory;
  const auto path = directory.file("routing.yaml");
  write_file(posix_io(), path, plan_to_yaml(RoutingPlan(layers), tiny_model_config()));
  CHECK(parse_routing_plan("routing=" + path) == RoutingPlan(layers));
}

}  // namespace dsmoe
