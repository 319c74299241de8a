#include "eval/curve.h"

#include <catch2/catch.hpp>
#include <map>

#include "model/flops.h"
#include "model/parameter_count.h"
#include "support/tiny_model.h"

namespace dsmoe {
namespace {

EvalText some_text() {
  EvalText text;
  text.sequences.emplace_back();
  for (int32_t i = 0; i < 100; ++i) text.sequences.back().push_back(i * i % 251);
  text.n_bytes = 100;
  return text;
}

}  // namespace

TEST_CASE("measure_curve: each point is an evaluation of its plan, in order") {
  auto model = make_tiny_model();
  const auto text = some_text();
  const auto plans = curve_plans(model->config());
  int64_t n_handed = 0;
  const auto points = measure_curve(model, text, plans, {}, [&](const CurvePoint&) { ++n_handed; });
  REQUIRE(points.size() == plans.size());
  CHECK(n_handed == static_cast<int64_t>(plans.size()));
  for (size_t i = 0; i < plans.size(); ++i) {
    CAPTURE(plans[i].to_string());
    const auto alone = evaluate_perplexity(model, text, {.plan = plans[i]});
    CHECK(points[i].plan == plans[i]);
    CHECK(points[i].quality.nats_total == alone.nats_total);
    const auto active = alone.usage.active_experts();
    CHECK(points[i].active_parameters == active_parameters(model->config(), active));
    CHECK(points[i].flops_per_token == forward_flops_per_token(model->config(), active, 12));
    CHECK(points[i].ms_per_token > 0);
    const auto n_all = static_cast<double>(count_parameters(model->config()).non_embedding());
    CHECK(points[i].share == points[i].active_parameters / n_all);
    CHECK(points[i].rise == alone.perplexity() / points[0].quality.perplexity() - 1);
  }
}

TEST_CASE("curve_plans: all, one expert first, no plan twice") {
  const auto plans = curve_plans(tiny_model_config());
  std::map<std::string, int> seen;
  for (const auto& plan : plans) ++seen[plan.to_string()];
  CHECK(seen.size() == plans.size());
  CHECK(plans[0].to_string() == "all");
  CHECK(plans[1].layer(0).moe == RoutingPolicy::top_k(1));
  CHECK(plans[1].layer(0).moa == RoutingPolicy::all());
  CHECK(plans[3].layer(0).moe == RoutingPolicy::top_k(4));  // of 5 experts
  auto dense = tiny_model_config();
  dense.ffn.kind = FfnKind::kDense;
  dense.attention.kind = AttentionKind::kDense;
  CHECK(curve_plans(dense).size() == 1);
}

TEST_CASE("measure_curve: a rise is over `all`, wherever that is in the list") {
  auto model = make_tiny_model();
  const RoutingPlan all = RoutingPolicy::all();
  const RoutingPlan few = RoutingPolicy::top_k(1);
  std::vector<bool> had_rise;
  const auto points = measure_curve(
      model, some_text(), {few, all.with(Execution::kDense)}, {}, [&](const CurvePoint& point) {
        had_rise.push_back(point.rise.has_value());
      });
  CHECK(had_rise == std::vector<bool>{false, true});
  CHECK(points[1].rise == 0.0);
  CHECK(points[0].rise == points[0].quality.perplexity() / points[1].quality.perplexity() - 1);
  CHECK_FALSE(measure_curve(model, some_text(), {few}, {})[0].rise);
}

TEST_CASE("measure_curve: a stop keeps the points that were finished") {
  auto model = make_tiny_model();
  int n_asked = 0;
  const auto plans = curve_plans(model->config());
  // 99 targets are five windows, four of them in one batch.
  const auto points =
      measure_curve(model, some_text(), plans, {.batch = 4, .stop = [&] { return ++n_asked > 5; }});
  CHECK(points.size() == 2);
}

}  // namespace dsmoe
