#include "train/train_step.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/randint.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "model/named_tensors.h"
#include "support/rank_threads.h"
#include "train/sharded_optimizer.h"
#include "train/tiny_run.h"

namespace dsmoe {
namespace {

constexpr int64_t kRankSteps = 50;
constexpr int64_t kAccumulation = 4;

struct StepOutcome {
  std::vector<double> losses;
  std::vector<double> terms;  // every defined term of every step
  std::vector<double> norms;
  NamedTensors weights;
};

RunConfig step_config() {
  auto config = tiny_run("unused", "unused");
  config.model.dropout = 0;
  config.train.loss.mi_scope = MiScope::kGlobal;
  config.train.loss.moe_mi_weight = 1e-2;
  config.train.loss.moa_mi_weight = 1e-2;
  config.train.optimizer.clip_norm = 0.5;  // below the first steps' norms
  return config;
}

// Micro-batch `index` of the run.
Batch micro_batch(const ModelConfig& model, int64_t index) {
  const auto draw = at::randint(
      model.vocab_size, {2, 17}, at::make_generator<at::CPUGeneratorImpl>(7 + index), at::kLong);
  return {.tokens = draw.narrow(1, 0, 16).contiguous(),
          .targets = draw.narrow(1, 1, 16).contiguous(),
          .positions = {2 * index, 2 * index + 1}};
}

StepOutcome step_on(RankGroup& ranks, bool shard_optimizer) {
  const auto config = step_config();
  Transformer model(config.model);
  init_weights(model, 1, 0.4);
  model->to(at::kDouble);
  Optimizer optimizer(
      named_parameters(*model), config.train.optimizer, optimizer_shard(shard_optimizer, ranks));
  TrainStep step(model, optimizer, step_settings(config), ranks);
  step.join_ranks({});
  StepOutcome outcome;
  const int64_t n_own = kAccumulation / ranks.world_size();
  for (int64_t i = 0; i < kRankSteps; ++i) {
    std::vector<Batch> batches;
    for (int64_t j = 0; j < n_own; ++j) {
      batches.push_back(micro_batch(config.model, i * kAccumulation + ranks.rank() * n_own + j));
    }
    const auto result = step.run(batches, i + 1, 1e-2);
    outcome.losses.push_back(result.loss.total.item<double>());
    for (const auto& value : result.loss.values) {
      if (value.defined()) outcome.terms.push_back(value.item<double>());
    }
    outcome.norms.push_back(result.gradient_norm);
  }
  for (const auto& [name, parameter] : optimizer.parameters()) {
    outcome.weights.emplace_back(name, parameter.detach().clone());
  }
  return outcome;
}

// Results on rank 0.
StepOutcome run_steps(int64_t size, bool shard_optimizer) {
  StepOutcome outcome;
  run_ranks(size, [&](RankGroup& group) {
    auto mine = step_on(group, shard_optimizer);
    if (group.rank() == 0) outcome = std::move(mine);
  });
  return outcome;
}

}  // namespace

TEST_CASE("TrainStep: in float64 any number of ranks takes the same 50 steps", "[train]") {
  static const auto alone = [] {
    RankGroup one_rank;
    return step_on(one_rank, false);
  }();
  REQUIRE(alone.norms.front() > 0.5);
  REQUIRE(alone.losses.back() != alone.losses.front());
  const int64_t size = GENERATE(2, 4);
  const bool shard_optimizer = GENERATE(false, true);
  CAPTURE(size, shard_optimizer);
  const auto shared = run_steps(size, shard_optimizer);
  for (size_t i = 0; i < static_cast<size_t>(kRankSteps); ++i) {
    CAPTURE(i);
    CHECK(std::abs(shared.losses.at(i) / alone.losses.at(i) - 1) < 1e-9);
    CHECK(std::abs(shared.norms.at(i) / alone.norms.at(i) - 1) < 1e-9);
  }
  REQUIRE(shared.terms.size() == alone.terms.size());
  REQUIRE(alone.terms.size() >= 3 * static_cast<size_t>(kRankSteps));
  for (size_t i = 0; i < alone.terms.size(); ++i) {
    CAPTURE(i);
    CHECK(std::abs(shared.terms[i] / alone.terms[i] - 1) < 1e-9);
  }
  for (size_t i = 0; i < alone.weights.size(); ++i) {
    CAPTURE(alone.weights[i].first);
    const auto difference = shared.weights.at(i).second - alone.weights[i].second;
    CHECK(difference.abs().max().item<double>() < 1e-9);
  }
}

}  // namespace dsmoe
