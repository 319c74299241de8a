#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>
#include <sstream>
#include <tuple>

#include "common/error.h"
#include "support/fake_backend.h"
#include "support/rank_threads.h"
#include "train/tiny_run.h"
#include "train/trainer.h"

namespace dsmoe {
namespace {

constexpr int64_t kSteps = 50;

struct Outcome {
  std::vector<double> losses;  // total, of every step
  std::vector<double> norms;
  std::vector<double> validation_losses;
  NamedTensors weights;  // of rank 0, in the end
};

struct Setting {
  int64_t accumulation = 4;
  MiScope mi_scope = MiScope::kGlobal;
  bool shard_optimizer = false;
  ShardLevel shard = ShardLevel::kNone;
};

RunConfig run_config(const std::string& run, const std::string& shards, const Setting& setting) {
  auto config = tiny_run(run, shards);
  config.train.steps = kSteps;
  config.train.accumulation = setting.accumulation;
  config.train.log_every = 1;
  config.train.save_every = 25;
  config.train.loss.mi_scope = setting.mi_scope;
  config.train.schedule.kind = ScheduleKind::kConstant;
  config.model.dropout = 0.0;  // ranks draw other masks
  config.data.prefetch = 0;
  config.data.validation = shards;
  config.train.validate_every = 25;
  config.distributed.shard_optimizer = setting.shard_optimizer;
  config.distributed.shard = setting.shard;
  config.threads = 1;
  return config;
}

Outcome read_outcome(const std::string& run, NamedTensors weights) {
  Outcome outcome;
  outcome.weights = std::move(weights);
  std::istringstream lines(read_file(posix_io(), run + "/metrics.jsonl", 1 << 20));
  for (std::string line; std::getline(lines, line);) {
    const auto json = nlohmann::json::parse(line);
    if (json.contains("validation_loss"))
      outcome.validation_losses.push_back(json["validation_loss"]);
    if (!json.contains("gradient_norm")) continue;
    outcome.losses.push_back(json["loss"]);
    outcome.norms.push_back(json["gradient_norm"]);
  }
  return outcome;
}

// Trains in `run` to config.train.steps; the weights of every rank at the end.
std::vector<NamedTensors> train_on(int64_t size, const RunConfig& config) {
  std::vector<NamedTensors> weights(static_cast<size_t>(size));
  const auto work = [&](const std::shared_ptr<RankGroup>& ranks) {
    auto& mine = weights[static_cast<size_t>(ranks->rank())];
    Trainer trainer(posix_io(), config, "auto", at::kCPU, ranks);
    trainer.run();
    for (const auto& [name, parameter] : named_parameters(*trainer.model())) {
      mine.emplace_back(name, parameter.detach().clone());
    }
  };
  if (size == 1) {
    work(std::make_shared<RankGroup>());
  } else {
    run_ranks(size, [&](RankGroup& group) {
      work(std::shared_ptr<RankGroup>(&group, [](RankGroup*) {}));
    });
  }
  return weights;
}

const std::string& shards() {
  static const TemporaryDirectory directory;
  static const std::string made = make_tiny_shards(directory, 700);
  return made;
}

Outcome train(int64_t size, const Setting& setting) {
  const TemporaryDirectory directory;
  const auto run = directory.file("run");
  auto config = run_config(run, shards(), setting);
  const auto weights = train_on(size, config);
  for (const auto& of_rank : weights) {
    for (size_t i = 0; i < of_rank.size(); ++i) {
      CAPTURE(size, of_rank[i].first);
      CHECK(at::equal(of_rank[i].second, weights[0][i].second));
    }
  }
  return read_outcome(run, weights[0]);
}

void check_close(const Outcome& outcome, const Outcome& expected) {
  REQUIRE(outcome.losses.size() == expected.losses.size());
  for (size_t i = 0; i < expected.losses.size(); ++i) {
    CAPTURE(i);
    CHECK(outcome.losses[i] == Approx(expected.losses[i]).epsilon(1e-4));
    CHECK(outcome.norms[i] == Approx(expected.norms[i]).epsilon(1e-2));
  }
  REQUIRE(outcome.validation_losses.size() == expected.validation_losses.size());
  for (size_t i = 0; i < expected.validation_losses.size(); ++i) {
    CHECK(outcome.validation_losses[i] == Approx(expected.validation_losses[i]).epsilon(1e-4));
  }
}

// A run that stops three times and resumes has the losses and norms of one that does not stop.
void check_resumed_bits(int64_t n_ranks, const Setting& setting) {
  const auto whole = train(n_ranks, setting);
  const TemporaryDirectory directory;
  auto config = run_config(directory.file("run"), shards(), setting);
  for (const int64_t steps : {7, 8, 31, 50}) {
    config.train.steps = steps;
    train_on(n_ranks, config);
  }
  const auto outcome = read_outcome(directory.file("run"), {});
  CHECK(outcome.losses == whole.losses);
  CHECK(outcome.norms == whole.norms);
}

}  // namespace

TEST_CASE("Trainer: ranks that share a global batch train as one rank does", "[train]") {
  const auto scope = GENERATE(MiScope::kGlobal, MiScope::kLocal);
  const auto alone = train(1, {.mi_scope = scope});
  REQUIRE(alone.losses.size() == kSteps);
  CHECK(alone.losses.back() < alone.losses.front());
  for (const int64_t size : {2, 4}) {
    CAPTURE(size);
    check_close(train(size, {.mi_scope = scope}), alone);
  }
}

TEST_CASE("Trainer: ranks report the use of experts by the tokens of all of them", "[train]") {
  const TemporaryDirectory directory;
  std::vector<std::vector<nlohmann::json>> runs;
  for (const int64_t size : {1, 2}) {
    auto config = run_config(directory.file(std::to_string(size)), shards(), {});
    config.train.steps = 4;
    config.train.log_every = 2;  // loads are those of two steps
    train_on(size, config);
    auto& lines = runs.emplace_back();
    std::istringstream text(read_file(posix_io(), config.run_dir + "/metrics.jsonl", 1 << 20));
    for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  }
  REQUIRE(runs[0].size() == runs[1].size());
  int n_compared = 0;
  for (size_t i = 0; i < runs[0].size(); ++i) {
    for (const auto* key : {"moe_routing", "moa_routing", "experts"}) {
      if (!runs[0][i].contains(key)) continue;
      ++n_compared;
      const auto alone = runs[0][i][key].flatten();
      const auto shared = runs[1][i][key].flatten();
      REQUIRE(alone.size() == shared.size());
      for (const auto& [path, value] : alone.items()) {
        CAPTURE(i, key, path);
        if (value.is_number()) {
          CHECK(shared[path].get<double>() ==
                Approx(value.get<double>()).epsilon(2e-2).margin(1e-2));
        }
      }
    }
  }
  CHECK(n_compared > 0);
}

TEST_CASE("Trainer: a step's collectives are its buckets, then the losses", "[train]") {
  const TemporaryDirectory directory;
  auto config = run_config(directory.file("run"), shards(), {.mi_scope = MiScope::kLocal});
  config.train.steps = 3;
  config.train.validate_every = 0;
  config.train.save_every = 0;
  FakeNetwork network(2);
  run_ranks(
      2,
      [&](RankGroup& group) {
        Trainer trainer(posix_io(),
                        config,
                        "none",
                        at::kCPU,
                        std::shared_ptr<RankGroup>(&group, [](RankGroup*) {}));
        // Once for each backward pass.
        trainer.model()->parameters().front().register_hook(
            [&](const at::Tensor&) { network.note(group.rank(), "micro-batch"); });
        while (trainer.step()) network.note(group.rank(), "step");
        trainer.finish();
      },
      {},
      network.make_backend());
  Transformer model(config.model);
  int64_t n_parameters = 0;
  for (const auto& [name, parameter] : named_parameters(*model)) n_parameters += parameter.numel();
  for (int64_t rank = 0; rank < 2; ++rank) {
    const auto log = network.log(rank);
    const auto first = std::find(log.begin(), log.end(), "micro-batch");
    // The configs are compared before a weight is sent, each weight before the first step.
    CHECK(std::count_if(log.begin(), first, [](const std::string& line) {
            return line.rfind("broadcast", 0) == 0;
          }) >= static_cast<int64_t>(named_parameters(*model).size()));
    CHECK(log[0].rfind("all-gather", 0) == 0);
    REQUIRE(log.end() - first >= 5);
    CHECK(*(first + 1) == "micro-batch");
    CHECK(*(first + 2) == "all-reduce " + std::to_string(n_parameters));
    CHECK((first + 3)->rfind("all-reduce ", 0) == 0);  // losses, expert use, the stop flag
    CHECK(*(first + 4) == "step");  // the norm is of averaged gradients: no collective
  }
}

TEST_CASE("Trainer: two runs of two ranks are the same bits", "[train]") {
  const auto first = train(2, {});
  const auto second = train(2, {});
  CHECK(first.losses == second.losses);
  CHECK(first.norms == second.norms);
}

TEST_CASE("Trainer: a sharded optimizer gives the bits of the whole one", "[train]") {
  const int64_t size = GENERATE(2, 4);
  const auto whole = train(size, {});
  const auto sharded = train(size, {.shard_optimizer = true});
  CHECK(sharded.losses == whole.losses);
  CHECK(sharded.norms == whole.norms);
  for (size_t i = 0; i < whole.weights.size(); ++i) {
    CHECK(at::equal(sharded.weights[i].second, whole.weights[i].second));
  }
}

TEST_CASE("Trainer: a checkpoint resumes on any number of ranks", "[train]") {
  const bool shard_optimizer = GENERATE(false, true);
  const auto alone = train(1, {.accumulation = 12});
  const TemporaryDirectory directory;
  const auto run = directory.file("run");
  auto config = run_config(run, shards(), {.accumulation = 12, .shard_optimizer = shard_optimizer});
  for (const auto& [size, steps] : {std::pair{4, 12}, {2, 25}, {3, 37}, {1, 50}}) {
    config.train.steps = steps;
    train_on(size, config);
  }
  const auto outcome = read_outcome(run, {});
  REQUIRE(outcome.losses.size() == alone.losses.size());
  for (size_t i = 0; i < alone.losses.size(); ++i) {
    CAPTURE(i);
    CHECK(outcome.losses[i] == Approx(alone.losses[i]).epsilon(1e-4));
  }
}

TEST_CASE("Trainer: shards resume at other levels and numbers of ranks", "[train]") {
  const auto alone = train(1, {.accumulation = 12});
  const TemporaryDirectory directory;
  auto config = run_config(directory.file("run"), shards(), {.accumulation = 12});
  using enum ShardLevel;
  const std::tuple<int64_t, int64_t, ShardLevel> parts[] = {{1, 6, kNone},
                                                            {2, 12, kGradients},
                                                            {4, 25, kGradients},
                                                            {3, 37, kOptimizer},
                                                            {2, 44, kNone},
                                                            {2, 50, kOptimizer}};
  for (const auto& [size, steps, level] : parts) {
    config.train.steps = steps;
    config.distributed.shard = level;
    train_on(size, config);
  }
  const auto outcome = read_outcome(directory.file("run"), {});
  REQUIRE(outcome.losses.size() == alone.losses.size());
  for (size_t i = 0; i < alone.losses.size(); ++i) {
    CAPTURE(i);
    CHECK(outcome.losses[i] == Approx(alone.losses[i]).epsilon(1e-4));
    CHECK(outcome.norms[i] == Approx(alone.norms[i]).epsilon(1e-2));
  }
}

TEST_CASE("Trainer: shards of two ranks save the bits that they resume from", "[train]") {
  const auto level = GENERATE(ShardLevel::kOptimizer, ShardLevel::kGradients);
  check_resumed_bits(2, {.shard = level});
}

// Three and more summands: their order decides the last bit.
TEST_CASE("Trainer: four ranks that stop and resume give the same bits", "[train]") {
  check_resumed_bits(4, {});
}

TEST_CASE("Trainer: ranks that cannot share the micro-batches are refused", "[train]") {
  const TemporaryDirectory directory;
  const auto config = run_config(directory.file("run"), shards(), {.accumulation = 3});
  REQUIRE_THROWS_WITH(train_on(2, config),
                      Catch::Contains("train.accumulation: expected a multiple of the 2 ranks"));
}

TEST_CASE("Trainer: ranks with different configs are refused by the differing key", "[train]") {
  const TemporaryDirectory directory;
  const auto config = run_config(directory.file("run"), shards(), {});
  const auto disagree = [&] {
    run_ranks(2, [&](RankGroup& group) {
      auto mine = config;
      if (group.rank() != 0) mine.train.batch_size = 1;
      Trainer(
          posix_io(), mine, "auto", at::kCPU, std::shared_ptr<RankGroup>(&group, [](RankGroup*) {
          }));
    });
  };
  REQUIRE_THROWS_WITH(disagree(), Catch::Contains("batch_size: 1' on rank 1"));
}

}  // namespace dsmoe
