#include "train/train_bench.h"

#include <ATen/ops/equal.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "common/error.h"
#include "common/random_seed.h"
#include "model/named_tensors.h"
#include "support/rank_threads.h"
#include "support/temporary_directory.h"
#include "train/tiny_run.h"
#include "train/trainer.h"

namespace dsmoe {
namespace {

RunConfig tiny_bench() {
  auto config = tiny_run("unused", "unused");
  config.model.dropout = 0;
  return config;
}

TEST_CASE("bench_tokens: SplitMix64 of the index, modulo the vocabulary", "[train][bench]") {
  const auto config = tiny_bench();
  const auto tokens = bench_tokens(config, 0);
  CHECK(tokens.sizes() == at::IntArrayRef({2, 17}));
  // SplitMix64's published first output for seed 0 is 0xe220a8397b1dcdaf.
  CHECK(tokens[0][0].item<int64_t>() == static_cast<int64_t>((0xe220a8397b1dcdafULL >> 33) % 257));
  // Micro-batches follow each other without a gap or a repetition.
  CHECK(bench_tokens(config, 1)[0][0].item<int64_t>() ==
        static_cast<int64_t>((mix_bits(34) >> 33) % 257));
}

// A separate rank for each bench.
RankGroup& one_rank() {
  static RankGroup group;
  return group;
}

TEST_CASE(
    "TrainBench: every part of a step takes time; a fresh model has the loss of uniform logits",
    "[train][bench]") {
  auto config = tiny_bench();
  TrainBench bench(config, one_rank());
  CHECK(bench.tokens_per_step() == 2 * 2 * 16);
  const auto times = bench.step();
  for (const auto part :
       {StepPart::kData, StepPart::kForward, StepPart::kLoss, StepPart::kBackward}) {
    CHECK(times.parts.at(static_cast<size_t>(part)) > 0);
  }
  CHECK(times.parts.at(static_cast<size_t>(StepPart::kOptimizer)) > 0);
  CHECK(bench.last_loss() == Approx(std::log(257)).margin(0.05));
}

TEST_CASE("run_train_bench: takes the steps of every config, and counts them after the warm-up",
          "[train][bench]") {
  auto larger = tiny_bench();
  larger.train.accumulation = 8;  // four times the tokens of the first
  const std::vector<RunConfig> configs{tiny_bench(), larger};
  const auto results = run_train_bench(configs, {.warmup = 2, .repetitions = 5}, one_rank());
  REQUIRE(results.size() == 2);
  for (size_t i = 0; i < 2; ++i) {
    CHECK(results[i].steps.size() == 5);
    TrainBench alone(configs[i], one_rank());
    std::vector<double> losses;
    for (int step = 0; step < 7; ++step) {
      alone.step();
      losses.push_back(alone.last_loss());
    }
    CHECK(results[i].losses == losses);
  }
  CHECK(results[1].losses != results[0].losses);
  CHECK(results[1].tokens_per_step == 4 * results[0].tokens_per_step);
  CHECK(results[0].flops_per_token == results[1].flops_per_token);
  CHECK(paired_ratio(results[0], results[0], &StepTimes::total) == 1.0);
}

TEST_CASE("run_train_bench: two ranks take the step of one", "[train][bench]") {
  auto config = tiny_bench();
  config.train.accumulation = 4;
  config.distributed.shard_optimizer = true;
  const TrainBenchOptions options{.warmup = 1, .repetitions = 2};
  const auto alone = run_train_bench({config}, options, one_rank()).front();
  std::vector<TrainBenchResult> results(2);
  run_ranks(2, [&](RankGroup& ranks) {
    results[static_cast<size_t>(ranks.rank())] = run_train_bench({config}, options, ranks).front();
  });
  for (const auto& result : results) {
    CHECK(result.n_ranks == 2);
    CHECK(result.tokens_per_step == alone.tokens_per_step);
    REQUIRE(result.losses.size() == 3);
    for (size_t i = 0; i < 3; ++i) CHECK(result.losses[i] == Approx(alone.losses[i]).epsilon(1e-5));
  }
}

TEST_CASE("paired_ratio: the median over rounds, not the ratio of medians", "[train][bench]") {
  const auto with_seconds = [](std::initializer_list<double> totals) {
    TrainBenchResult result;
    for (const double seconds : totals) result.steps.push_back({{seconds}});
    return result;
  };
  const auto first = with_seconds({1, 2, 8});
  const auto second = with_seconds({2, 6, 8});
  CHECK(paired_ratio(second, first, &StepTimes::total) == 2.0);  // of 2, 3, 1; the medians give 3
  CHECK(median({3, 1, 2, 10}) == 2.5);
}

TEST_CASE("TrainBench: takes the step that training takes", "[train][bench]") {
  TemporaryDirectory directory;
  auto config = tiny_run(directory.file("run"), make_tiny_shards(directory));
  config.model.dropout = 0;
  config.train.steps = 1;
  config.train.schedule.warmup_steps = 0;
  const auto trained = Trainer(posix_io(), config, "none").run();

  TrainBench bench(config, one_rank());
  // The bench's tokens are others: compare on the trainer's, by the step that both share.
  DataLoader loader(std::make_shared<TokenDataset>(config.data.train.front()),
                    {.seq_len = 16,
                     .batch_size = 2,
                     .seed = derive_seed(static_cast<uint64_t>(config.seed), "data"),
                     .prefetch = 0});
  Optimizer optimizer(named_parameters(*bench.model()), config.train.optimizer);
  TrainStep step(bench.model(), optimizer, step_settings(config), one_rank());
  const std::vector<Batch> batches{loader.next(), loader.next()};
  const auto result = step.run(batches, 1, config.train.schedule.peak);
  CHECK(result.loss.total.item<double>() == trained.last->loss);
  CHECK(result.gradient_norm == trained.last->gradient_norm);
}

TEST_CASE("resolve_bench_config: needs a vocabulary, not data", "[train][bench]") {
  auto config = tiny_bench();
  config.data.train = {};
  config.run_dir = "";
  CHECK_NOTHROW(resolve_bench_config(config));
  config.model.vocab_size = 0;
  CHECK_THROWS_AS(resolve_bench_config(config), Error);
  config = tiny_bench();
  config.data.seq_len = config.model.max_seq_len + 1;
  CHECK_THROWS_AS(resolve_bench_config(config), Error);
}

}  // namespace
}  // namespace dsmoe
