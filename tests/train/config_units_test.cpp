#include <catch2/catch.hpp>

#include "common/error.h"
#include "train/train_config.h"

namespace dsmoe {
namespace {

// 4 sequences of 128 tokens in a micro-batch.
RunConfig small_batches() {
  RunConfig config;
  config.run_dir = "run";
  config.data.train = {"shards"};
  config.model.max_seq_len = 128;
  config.train.batch_size = 4;
  return config;
}

TEST_CASE("units: tokens, epochs and batches become steps and accumulation", "[train][config]") {
  auto config = small_batches();
  config.train.tokens = 100'000;
  CHECK(resolve_units(config, std::nullopt) ==
        std::vector<std::string>{"train.steps = 196: tokens = 100000, 512 a step"});
  CHECK(config.train.steps == 196);
  CHECK_FALSE(config.train.has_units());

  config = small_batches();
  config.train.batch_tokens = 5000;  // 9.77 micro-batches
  config.train.epochs = 1.5;
  CHECK(resolve_units(config, 10'241) ==
        std::vector<std::string>{"train.accumulation = 10: batch_tokens = 5000, 512 a micro-batch",
                                 "train.steps = 4: epochs = 1.5, 10241 tokens each, 5120 a step"});
  CHECK(config.train.accumulation == 10);
  CHECK(config.train.steps == 4);  // 3.0003 rounded up

  config = small_batches();
  config.train.batch_tokens = 1;
  resolve_units(config, std::nullopt);
  CHECK(config.train.accumulation == 1);

  config = small_batches();
  config.train.batch_sequences = 12;
  resolve_units(config, std::nullopt);
  CHECK(config.train.accumulation == 3);
  config.train.batch_sequences = 10;
  CHECK_THROWS_WITH(resolve_units(config, std::nullopt),
                    Catch::Contains("a multiple of train.batch_size = 4, got 10"));
}

TEST_CASE("units: epochs of unknown data are refused", "[train][config]") {
  auto config = small_batches();
  config.train.epochs = 2;
  CHECK_THROWS_WITH(resolve_units(config, std::nullopt),
                    Catch::Contains("train.epochs = 2") && Catch::Contains("data.train"));
}

TEST_CASE("units: a warm-up is a share, steps or tokens", "[train][config]") {
  const std::pair<const char*, int64_t> cases[] = {{"2%", 20},
                                                   {"0.5 %", 5},
                                                   {"100%", 1000},
                                                   {"0%", 0},
                                                   {"0.03", 30},
                                                   {"200", 200},
                                                   {"200 steps", 200},
                                                   {"1k", 1000},
                                                   {"1 step", 1},
                                                   {"51200 tokens", 100},
                                                   {"51201tokens", 101},
                                                   {"0.1M tokens", 196}};
  for (const auto& [text, steps] : cases) {
    CAPTURE(text);
    auto config = small_batches();
    config.train.schedule.warmup = text;
    CHECK(resolve_units(config, std::nullopt).size() == 1);
    CHECK(config.train.schedule.warmup_steps == steps);
    CHECK(config.train.schedule.warmup.empty());
  }
  for (const char* text :
       {"x", "-1", "101%", "-1%", "1.5", "%", "tokens", "2% tokens", "1.5 steps"}) {
    CAPTURE(text);
    auto config = small_batches();
    config.train.schedule.warmup = text;
    CHECK_THROWS_WITH(resolve_units(config, std::nullopt),
                      Catch::Contains("train.schedule.warmup: expected a share as 2%"));
  }
}

TEST_CASE("units: a share of the warm-up is of the steps that tokens come to", "[train][config]") {
  auto config = small_batches();
  config.train.tokens = 512 * 50;
  config.train.schedule.warmup = "10%";
  CHECK_NOTHROW(config.validate());  // 100 steps of warm-up do not count yet
  resolve_units(config, std::nullopt);
  CHECK(config.train.steps == 50);
  CHECK(config.train.schedule.warmup_steps == 5);
  CHECK_NOTHROW(config.validate());
}

TEST_CASE("units: a config without them stays as it is", "[train][config]") {
  auto config = small_batches();
  config.train.steps = 7;
  CHECK_FALSE(config.train.has_units());
  CHECK(resolve_units(config, std::nullopt).empty());
  CHECK(config.train.steps == 7);
  CHECK(config.train.accumulation == 1);
}

}  // namespace
}  // namespace dsmoe
