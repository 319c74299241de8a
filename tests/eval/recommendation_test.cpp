#include "eval/recommendation.h"

#include <algorithm>
#include <catch2/catch.hpp>
#include <map>

#include "common/error.h"
#include "common/stop_signal.h"
#include "support/tiny_model.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;

EvalText recommendation_text() {
  EvalText text;
  text.sequences.emplace_back();
  for (int32_t i = 0; i < 400; ++i) text.sequences.back().push_back(i * i % 251);
  text.n_bytes = 400;
  return text;
}

std::map<std::string, PolicyQuality> by_policy(const Recommendation& found) {
  std::map<std::string, PolicyQuality> measured;
  for (const auto& one : found.measured) measured[one.plan.to_string()] = one;
  REQUIRE(measured.size() == found.measured.size());  // none twice
  return measured;
}

double perplexity_of(Transformer& model, const RoutingPlan& plan) {
  return evaluate_perplexity(model, recommendation_text(), {.plan = plan}).perplexity();
}

}  // namespace

TEST_CASE("recommend_policy: takes the fewest active parameters that were measured in the rise") {
  auto model = make_tiny_model();
  const auto text = recommendation_text();
  for (const double rise : {0.0, 0.002, 0.01, 0.1, 1e9}) {
    CAPTURE(rise);
    const auto found = recommend_policy(model, text, {.rise = rise});
    const auto measured = by_policy(found);
    CHECK(found.tokens_scored == 399);
    CHECK(found.reference.plan == RoutingPlan(RoutingPolicy::all()));
    CHECK(found.reference.perplexity == perplexity_of(model, RoutingPolicy::all()));
    const auto& chosen = measured.at(found.chosen.plan.to_string());
    CHECK(chosen.rise <= rise);
    CHECK(chosen.perplexity == perplexity_of(model, found.chosen.plan));
    for (const auto& [policy, one] : measured) {
      CAPTURE(policy);
      CHECK(one.rise == one.perplexity / found.reference.perplexity - 1);
      CHECK((one.rise > rise || one.active_parameters >= chosen.active_parameters));
    }
  }
}

TEST_CASE("recommend_policy: measures the named policies and refines between two neighbours") {
  auto model = make_tiny_model();
  const auto found = recommend_policy(model, recommendation_text(), {.rise = 0.01});
  const auto measured = by_policy(found);
  for (const auto* policy : {"all",
                             "threshold=0.2",
                             "threshold=0.4",
                             "threshold=0.6",
                             "threshold=0.8",
                             "threshold=1.2",
                             "moe:top_k=1;moa:all",
                             "moe:top_k=2;moa:all",
                             "moe:top_k=4;moa:all"}) {
    CAPTURE(policy);
    CHECK(measured.count(policy) == 1);
  }
  // Three refinements of the thresholds; of top_k between 5 and 4 there is none.
  double within = 0;
  double beyond = 2;
  for (const auto& [policy, one] : measured) {
    const auto& moe = one.plan.layer(0).moe;
    if (moe.selection != Selection::kThreshold) continue;
    if (one.rise <= 0.01) within = std::max(within, moe.epsilon);
  }
  for (const auto& [policy, one] : measured) {
    const auto& moe = one.plan.layer(0).moe;
    if (moe.selection == Selection::kThreshold && moe.epsilon > within) {
      beyond = std::min(beyond, moe.epsilon);
    }
  }
  CHECK(measured.size() == 9 + 3);
  CHECK(beyond - within < 0.06);  // of two neighbours 0.2 or 0.4 apart
}

TEST_CASE("recommend_policy: keeps the reference if nothing that was measured is within the rise") {
  auto model = make_tiny_model();
  const auto found = recommend_policy(model, recommendation_text(), {.rise = -0.9});
  CHECK(found.chosen.plan == RoutingPlan(RoutingPolicy::all()));
  CHECK(found.chosen.rise == 0);
  CHECK(found.chosen.share == 1);
}

TEST_CASE("recommend_policy: a share of the windows, spread over the text, and bounded progress") {
  auto model = make_tiny_model();
  int64_t last = 0;
  int64_t bound = 0;
  const auto found = recommend_policy(
      model, recommendation_text(), {.tokens = 100, .on_progress = [&](int64_t done, int64_t all) {
                                       CHECK(done > last);
                                       CHECK(done <= all);
                                       CHECK((bound == 0 || bound == all));
                                       last = done;
                                       bound = all;
                                     }});
  // Every 4th of 17 windows of 24, of which the last is short.
  CHECK(found.tokens_scored == 4 * 24 + 15);
  CHECK(last == static_cast<int64_t>(found.measured.size()) * 5);
}

TEST_CASE(
    "recommend_policy: a cut model is compared with its training selection if that is better") {
  ModelConfig config = tiny_model_config(31);
  config.attention.kind = AttentionKind::kDense;
  config.attention.n_heads = 2;
  config.attention.n_kv_heads = 1;
  config.ffn.kind = FfnKind::kPartitioned;
  config.ffn.activation = Activation::kSwiglu;
  config.ffn.d_ffn = 5 * 3;
  config.ffn.router.kind = RouterKind::kLinear;
  config.training_policy = "threshold=0.5";
  Transformer model(config);
  init_weights(model, 3, 0.4);
  EvalText text;
  text.sequences.emplace_back();
  for (int32_t i = 0; i < 200; ++i) text.sequences.back().push_back(i * i % 31);
  const auto found = recommend_policy(model, text, {.rise = 0.02});
  const auto measured = by_policy(found);
  REQUIRE(measured.count("threshold=0.5") == 1);
  CHECK(measured.count("threshold=1.2") == 0);  // no sigmoid gate is above 1
  const double all = measured.at("all").perplexity;
  const double trained = measured.at("threshold=0.5").perplexity;
  CHECK(found.reference.plan.to_string() == (trained < all ? "threshold=0.5" : "all"));
  CHECK(found.reference.perplexity == std::min(all, trained));
}

TEST_CASE("recommend_policy: refuses a dense model, and a stop ends it") {
  auto config = tiny_model_config();
  config.ffn.kind = FfnKind::kDense;
  config.attention.kind = AttentionKind::kDense;
  Transformer dense(config);
  init_weights(dense, 1, 0.4);
  CHECK_THROWS_WITH(recommend_policy(dense, recommendation_text(), {}), Contains("dense"));
  auto model = make_tiny_model();
  CHECK_THROWS_AS(recommend_policy(model, recommendation_text(), {.stop = [] { return true; }}),
                  StoppedError);
}

}  // namespace dsmoe
