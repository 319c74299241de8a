#include "train/parameter_shards.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randint.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <mutex>
#include <optional>

#include "common/error.h"
#include "support/rank_threads.h"
#include "train/tiny_run.h"
#include "train/train_step.h"

namespace dsmoe {
namespace {

using Level = std::optional<ShardLevel>;  // none: every rank keeps whole parameters

struct ShardSetting {
  int64_t n_ranks = 2;
  int64_t own_batches = 1;
  int64_t n_steps = 20;
  double clip_norm = 0;
  ComputeDtype compute_dtype = ComputeDtype::kFloat32;
  Recompute recompute = Recompute::kNone;
  bool is_double = false;
};

struct ShardOutcome {
  std::vector<double> losses;
  std::vector<double> norms;
  std::map<std::string, at::Tensor> masters;  // whole, flat
};

Batch shard_batch(const ModelConfig& model, int64_t index) {
  const auto draw = at::randint(
      model.vocab_size, {2, 17}, at::make_generator<at::CPUGeneratorImpl>(7 + index), at::kLong);
  return {.tokens = draw.narrow(1, 0, 16).contiguous(),
          .targets = draw.narrow(1, 1, 16).contiguous(),
          .positions = {2 * index, 2 * index + 1}};
}

RunConfig shard_config(const ShardSetting& setting) {
  auto config = tiny_run("unused", "unused");
  config.model.n_layers = 3;
  config.model.dropout = 0;
  config.train.loss.mi_scope = MiScope::kGlobal;
  config.train.loss.moe_mi_weight = 1e-2;
  config.train.loss.moa_mi_weight = 1e-2;
  config.train.optimizer.clip_norm = setting.clip_norm;
  config.train.compute_dtype = setting.compute_dtype;
  config.train.checkpoint_activations = setting.recompute;
  return config;
}

Transformer shard_model(const ShardSetting& setting) {
  Transformer model(shard_config(setting).model);
  init_weights(model, 1, 0.4);
  if (setting.is_double) model->to(at::kDouble);
  return model;
}

void run_shard_steps(const ShardSetting& setting,
                     RankGroup& ranks,
                     TrainStep& step,
                     ShardOutcome& outcome) {
  const auto config = shard_config(setting);
  for (int64_t i = 0; i < setting.n_steps; ++i) {
    std::vector<Batch> batches;
    for (int64_t j = 0; j < setting.own_batches; ++j) {
      batches.push_back(shard_batch(
          config.model, (i * ranks.world_size() + ranks.rank()) * setting.own_batches + j));
    }
    const auto result = step.run(batches, i + 1, 1e-2);
    outcome.losses.push_back(result.loss.total.item<double>());
    outcome.norms.push_back(result.gradient_norm);
  }
}

// The outcome of rank 0, with the masters of all ranks.
ShardOutcome run_level(const ShardSetting& setting, Level level) {
  ShardOutcome outcome;
  std::mutex mutex;
  for (const auto& [name, parameter] : named_parameters(*shard_model(setting))) {
    outcome.masters[name] = parameter.detach().view(-1) * NAN;  // every element must be written
  }
  run_ranks(setting.n_ranks, [&](RankGroup& ranks) {
    const auto config = shard_config(setting);
    auto model = shard_model(setting);
    const auto settings = step_settings(config);
    ShardOutcome mine;
    if (level) {
      ParameterShards shards(model, ranks, settings.forward.compute_dtype, *level);
      Optimizer optimizer(shards.pieces(), config.train.optimizer);
      TrainStep step(model, optimizer, settings, ranks, &shards);
      step.join_ranks({});
      run_shard_steps(setting, ranks, step, mine);
      const std::lock_guard<std::mutex> lock(mutex);
      for (const auto& piece : shards.pieces()) {
        outcome.masters[piece.name]
            .narrow(0, piece.begin, piece.elements.numel())
            .copy_(piece.elements);
      }
    } else {
      Optimizer optimizer(named_parameters(*model), config.train.optimizer);
      TrainStep step(model, optimizer, settings, ranks);
      step.join_ranks({});
      run_shard_steps(setting, ranks, step, mine);
      const std::lock_guard<std::mutex> lock(mutex);
      for (const auto& [name, parameter] : named_parameters(*model)) {
        outcome.masters[name].copy_(parameter.detach().view(-1));
      }
    }
    const std::lock_guard<std::mutex> lock(mutex);
    if (ranks.rank() != 0) return;
    outcome.losses = mine.losses;
    outcome.norms = mine.norms;
  });
  return outcome;
}

}  // namespace

TEST_CASE("ParameterShards: two ranks take the same bits under every level", "[train]") {
  const auto dtype = GENERATE(ComputeDtype::kFloat32, ComputeDtype::kBfloat16);
  const auto recompute = GENERATE(Recompute::kNone, Recompute::kAttention, Recompute::kBlock);
  const ShardSetting setting{.compute_dtype = dtype, .recompute = recompute};
  const auto whole = run_level(setting, {});
  REQUIRE(whole.losses.front() != whole.losses.back());
  for (const auto level : {ShardLevel::kOptimizer, ShardLevel::kGradients}) {
    CAPTURE(static_cast<int>(dtype), static_cast<int>(recompute), static_cast<int>(level));
    const auto sharded = run_level(setting, level);
    CHECK(sharded.losses == whole.losses);
    for (size_t i = 0; i < whole.norms.size(); ++i) {
      CHECK(std::abs(sharded.norms[i] / whole.norms[i] - 1) < 1e-12);
    }
    for (const auto& [name, master] : whole.masters) {
      CAPTURE(name);
      CHECK(at::equal(sharded.masters.at(name), master));
    }
  }
}

TEST_CASE("ParameterShards: in float64 four ranks accumulate and clip as whole ones", "[train]") {
  const int64_t n_ranks = GENERATE(3, 4);
  const ShardSetting setting{
      .n_ranks = n_ranks, .own_batches = 2, .clip_norm = 0.5, .is_double = true};
  const auto whole = run_level(setting, {});
  REQUIRE(whole.norms.front() > 0.5);
  for (const auto level : {ShardLevel::kOptimizer, ShardLevel::kGradients}) {
    CAPTURE(n_ranks, static_cast<int>(level));
    const auto sharded = run_level(setting, level);
    for (size_t i = 0; i < whole.losses.size(); ++i) {
      CHECK(std::abs(sharded.losses[i] / whole.losses[i] - 1) < 1e-9);
      CHECK(std::abs(sharded.norms[i] / whole.norms[i] - 1) < 1e-9);
    }
    for (const auto& [name, master] : whole.masters) {
      CAPTURE(name);
      CHECK((sharded.masters.at(name) - master).abs().max().item<double>() < 1e-9);
    }
  }
}

TEST_CASE("ParameterShards: working weights are the masters in the compute dtype", "[train]") {
  const ShardSetting setting;
  const auto before = named_parameters(*shard_model(setting));
  std::vector<NamedTensors> after(2);
  run_ranks(2, [&](RankGroup& ranks) {
    auto model = shard_model(setting);
    ParameterShards shards(model, ranks, at::kBFloat16, ShardLevel::kGradients);
    shards.gather();
    for (const auto& [name, parameter] : named_parameters(*model)) {
      after[static_cast<size_t>(ranks.rank())].emplace_back(name, parameter.detach().clone());
    }
  });
  int64_t n_narrow = 0;
  for (const auto& of_rank : after) {
    for (size_t i = 0; i < before.size(); ++i) {
      const auto& [name, weight] = of_rank[i];
      CAPTURE(name);
      const bool is_narrow = weight.scalar_type() == at::kBFloat16;
      CHECK(is_narrow == (name.find("_proj.weight") != std::string::npos &&
                          name.find("router") == std::string::npos));
      n_narrow += is_narrow ? 1 : 0;
      CHECK(at::equal(weight, before[i].second.detach().to(weight.scalar_type())));
    }
  }
  CHECK(n_narrow > 0);
}

TEST_CASE("ParameterShards: a parameter without a gradient is named", "[train]") {
  const ShardSetting setting;
  const auto lose_one = [&] {
    run_ranks(2, [&](RankGroup& ranks) {
      auto model = shard_model(setting);
      ParameterShards shards(model, ranks, at::kFloat, ShardLevel::kGradients);
      at::Tensor sum;
      for (const auto& [name, parameter] : named_parameters(*model)) {
        if (name == "blocks_1.ffn_norm.weight") continue;
        sum = sum.defined() ? sum + parameter.sum() : parameter.sum();
      }
      shards.backward(sum, true);
    });
  };
  REQUIRE_THROWS_WITH(lose_one(), Catch::Contains("'blocks_1.ffn_norm.weight' of block 1"));
}

}  // namespace dsmoe
