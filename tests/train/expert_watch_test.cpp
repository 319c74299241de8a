#include "train/expert_watch.h"

#include <ATen/ops/log.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "model/loss/mutual_information.h"

namespace dsmoe {
namespace {

// One layer of three FFN experts over the tokens given by their probabilities.
ModelOutput output_of(const std::vector<std::vector<double>>& probs,
                      const std::vector<std::vector<double>>& selected = {}) {
  std::vector<double> flat, flags;
  for (const auto& row : probs) flat.insert(flat.end(), row.begin(), row.end());
  for (const auto& row : selected) flags.insert(flags.end(), row.begin(), row.end());
  const auto n_tokens = static_cast<int64_t>(probs.size());
  RoutingRecord record;
  record.router_probs = at::tensor(flat, at::kFloat).view({1, n_tokens, 3});
  record.router_logits = record.router_probs.log();
  record.selected = selected.empty()
                        ? at::ones_like(record.router_probs, at::kBool)
                        : at::tensor(flags, at::kFloat).view({1, n_tokens, 3}).to(at::kBool);
  ModelOutput output;
  output.logits = at::zeros({1, n_tokens, 2});
  output.moe = {record};
  return output;
}

GuardConfig alarms_after(int64_t steps) {
  GuardConfig config;
  config.dead_expert_steps = steps;
  config.collapse_entropy = 0.2;
  return config;
}

TEST_CASE("ExpertWatch: load, entropies and mutual information of a worked example",
          "[train][guard]") {
  ExpertWatch watch({}, RoutingPolicy::all());
  const auto output = output_of({{0.5, 0.25, 0.25}, {0.25, 0.5, 0.25}});
  watch.add(output, true);
  watch.end_step();
  const auto stats = watch.take_stats();
  REQUIRE(stats.moe.size() == 1);
  CHECK(stats.moa.empty());
  const auto& layer = stats.moe[0];
  CHECK(layer.load == std::vector<double>{0.5, 0.5, 0.0});
  CHECK(layer.active_experts == 3.0);
  const double per_token = 0.5 * std::log(2.0) + 0.5 * std::log(4.0);
  const double of_mean = 2 * 0.375 * -std::log(0.375) + 0.25 * std::log(4.0);
  REQUIRE(layer.entropies);
  CHECK(layer.entropies->token == Approx(per_token).epsilon(1e-6));
  CHECK(layer.entropies->mean == Approx(of_mean).epsilon(1e-6));
  // The loss of the paper is minus this number.
  const double loss = mutual_information_loss(output.moe[0].router_logits).item<double>();
  CHECK(layer.entropies->mutual_information() == Approx(-loss).epsilon(1e-5));
  CHECK(watch.take_stats().moe[0].load == std::vector<double>{0, 0, 0});
}

TEST_CASE("ExpertWatch: gates of a sigmoid router are no distribution and have no entropies",
          "[train][guard]") {
  ExpertWatch watch(alarms_after(1), RoutingPolicy::threshold(0.5));
  // As a distribution this mean would have collapsed.
  auto output = output_of({{1, 1, 1}, {1, 1, 1}}, {{1, 1, 1}, {1, 1, 1}});
  output.moe_activation = RouterActivation::kSigmoid;
  watch.add(output, true);
  CHECK(watch.end_step().empty());
  const auto stats = watch.take_stats();
  CHECK_FALSE(stats.moe[0].entropies);
  CHECK(stats.moe[0].active_experts == 3.0);
}

TEST_CASE("ExpertWatch: under a sparse policy load counts the selected experts", "[train][guard]") {
  ExpertWatch watch({}, RoutingPolicy::top_k(1));
  watch.add(output_of({{0.5, 0.25, 0.25}, {0.25, 0.5, 0.25}}, {{1, 0, 0}, {1, 0, 0}}), false);
  watch.end_step();
  const auto stats = watch.take_stats();
  CHECK(stats.moe[0].load == std::vector<double>{1, 0, 0});
  CHECK(stats.moe[0].active_experts == 1.0);
}

TEST_CASE("ExpertWatch: an expert without load raises one alarm until it has load again",
          "[train][guard]") {
  ExpertWatch watch(alarms_after(3), RoutingPolicy::all());
  const auto without_third = output_of({{0.5, 0.4, 0.1}, {0.4, 0.5, 0.1}});
  const auto with_third = output_of({{0.2, 0.4, 0.4}, {0.4, 0.2, 0.4}});
  std::vector<size_t> n_alarms;
  const auto step = [&](const ModelOutput& output) {
    watch.add(output, false);
    const auto alarms = watch.end_step();
    for (const auto& alarm : alarms)
      CHECK(alarm == "layer 0 moe: expert 2 had no load for 3 steps");
    n_alarms.push_back(alarms.size());
  };
  for (int i = 0; i < 5; ++i) step(without_third);
  step(with_third);
  for (int i = 0; i < 3; ++i) step(without_third);
  CHECK(n_alarms == std::vector<size_t>{0, 0, 1, 0, 0, 0, 0, 0, 1});
}

TEST_CASE("ExpertWatch: a layer that no token uses raises one alarm until it is used again",
          "[train][guard]") {
  ExpertWatch watch(alarms_after(0), RoutingPolicy::threshold(0.5));
  // Gates of a router of zeros, and of one that opens a gate for one of two tokens.
  const auto closed = output_of({{0.5, 0.5, 0.5}, {0.5, 0.5, 0.5}}, {{0, 0, 0}, {0, 0, 0}});
  const auto open = output_of({{0.5, 0.6, 0.5}, {0.5, 0.5, 0.5}}, {{0, 1, 0}, {0, 0, 0}});
  std::vector<size_t> n_alarms;
  const auto step = [&](const std::vector<ModelOutput>& micro_batches) {
    for (auto output : micro_batches) {
      output.moe_activation = RouterActivation::kSigmoid;
      watch.add(output, false);
    }
    const auto alarms = watch.end_step();
    for (const auto& alarm : alarms) CHECK(alarm.rfind("layer 0 moe: no token used", 0) == 0);
    n_alarms.push_back(alarms.size());
  };
  step({closed, closed});
  step({closed});
  step({closed, open});
  step({open});
  step({closed});
  CHECK(n_alarms == std::vector<size_t>{1, 0, 0, 0, 1});
  CHECK(watch.take_stats().moe[0].active_experts == 2.0 / 14);
}

TEST_CASE("ExpertWatch: a router that sends every token to one expert raises an alarm, a NaN too",
          "[train][guard]") {
  ExpertWatch watch(alarms_after(0), RoutingPolicy::all());
  const auto alarms_of = [&](const ModelOutput& output) {
    watch.add(output, true);
    const auto alarms = watch.end_step();
    watch.take_stats();
    return alarms.size();
  };
  // Concentrated per token but spread over experts: not collapsed.
  CHECK(alarms_of(output_of({{0.98, 0.01, 0.01}, {0.01, 0.98, 0.01}})) == 0);
  CHECK(alarms_of(output_of({{0.98, 0.01, 0.01}, {0.98, 0.01, 0.01}})) == 1);
  CHECK(alarms_of(output_of({{0.98, 0.01, 0.01}, {0.98, 0.01, 0.01}})) == 0);
  CHECK(alarms_of(output_of({{0.4, 0.3, 0.3}, {0.4, 0.3, 0.3}})) == 0);
  CHECK(alarms_of(output_of({{std::nan(""), 0.3, 0.3}, {0.4, 0.3, 0.3}})) == 1);
}

TEST_CASE("ExpertWatch: sums of two ranks' numbers watch the tokens of both", "[train][guard]") {
  const auto first = output_of({{0.5, 0.4, 0.1}, {0.4, 0.5, 0.1}});
  const auto second = output_of({{0.1, 0.2, 0.7}, {0.3, 0.1, 0.6}});
  std::vector<ExpertWatch> ranks(2, ExpertWatch(alarms_after(1), RoutingPolicy::all()));
  ExpertWatch alone(alarms_after(1), RoutingPolicy::all());
  for (const bool measures : {false, true}) {
    ranks[0].add(first, measures);
    ranks[1].add(second, measures);
    const auto mine = ranks[0].step_numbers();
    const auto theirs = ranks[1].step_numbers();
    REQUIRE(mine.size() == theirs.size());
    for (size_t i = 0; i < mine.size(); ++i) *mine[i] = *theirs[i] = *mine[i] + *theirs[i];
    for (const auto* output : {&first, &second}) alone.add(*output, measures);
    // On each single rank an expert has no load.
    CHECK(alone.end_step().empty());
    for (auto& rank : ranks) CHECK(rank.end_step().empty());
  }
  const auto expected = alone.take_stats().moe[0];
  for (auto& rank : ranks) {
    const auto stats = rank.take_stats().moe[0];
    CHECK(stats.load == expected.load);
    CHECK(stats.active_experts == expected.active_experts);
    REQUIRE(stats.entropies);
    CHECK(stats.entropies->token == Approx(expected.entropies->token).epsilon(1e-12));
    CHECK(stats.entropies->mean == Approx(expected.entropies->mean).epsilon(1e-12));
  }
}

}  // namespace
}  // namespace dsmoe
