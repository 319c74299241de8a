#include "train/run_summary.h"

#include <catch2/catch.hpp>

#include "common/error.h"
#include "train/tiny_run.h"

namespace dsmoe {
namespace {

struct Case {
  TemporaryDirectory directory;
  std::string shards = make_tiny_shards(directory);
  RunConfig config = tiny_run(directory.file("run"), shards);
  RunPlace place{.memory_bytes = int64_t{1} << 40, .free_disk_bytes = int64_t{1} << 40};
  StartPoint start;

  RunSummary summary(const std::vector<std::string>& policies = {}) const {
    const TrainingData data(config.data.train, config.data.weights, config.data.tokenizer);
    return summarise_run(config, data, place, start, policies);
  }
};

TEST_CASE("RunSummary: counts parameters, tokens a step, tokens and epochs", "[train][summary]") {
  Case c;
  const auto summary = c.summary();
  CHECK(summary.parameters.total() == count_parameters(c.config.model).total());
  CHECK(summary.tokens_per_step == 2 * 2 * 16);
  CHECK(summary.steps == 40);
  CHECK(summary.total_tokens == 40 * 64);
  CHECK(summary.data_tokens == 1501);
  CHECK(summary.epochs == Approx(2560.0 / 1501.0));
  REQUIRE(summary.corpora.size() == 1);
  CHECK(summary.corpora[0].epochs == Approx(summary.epochs));
  CHECK(summary.corpora[0].documents == 1);
}

TEST_CASE("RunSummary: a corpus of a larger share is passed more often", "[train][summary]") {
  Case c;
  c.config.data.train = {c.shards, c.shards};
  c.config.data.weights = {3, 1};
  const auto summary = c.summary();
  CHECK(summary.data_tokens == 3002);
  CHECK(summary.epochs == Approx(2560.0 / 3002.0));
  CHECK(summary.corpora[0].epochs == Approx(0.75 * 2560.0 / 1501.0));
  CHECK(summary.corpora[1].epochs == Approx(0.25 * 2560.0 / 1501.0));
}

TEST_CASE("RunSummary: lists the active parameters of each policy once", "[train][summary]") {
  Case c;
  c.config.model.training_policy = "top_k=2";
  const auto summary = c.summary({"all", "threshold=0.5", "top_k=1"});
  REQUIRE(summary.policies.size() == 4);
  CHECK(summary.policies[0].policy == "all");
  CHECK(summary.policies[0].active == Approx(summary.parameters.non_embedding()));
  CHECK(summary.policies[1].policy == "top_k=2");
  // Two layers, 4 experts of 2 * 5 * 12 parameters, 2 of them unused.
  CHECK(*summary.policies[0].active - *summary.policies[1].active == Approx(2 * 2 * 120));
  CHECK(summary.policies[2].policy == "threshold=0.5");
  CHECK_FALSE(summary.policies[2].active.has_value());
  CHECK(*summary.policies[0].active - *summary.policies[3].active == Approx(2 * 3 * 120));
  CHECK_THROWS_WITH(c.summary({"top_k=5"}), Catch::Contains("n_experts = 4"));
}

TEST_CASE("RunSummary: compares memory of the host's ranks with its memory", "[train][summary]") {
  Case c;
  const auto one = c.summary();
  CHECK(one.host_memory_bytes == one.memory.peak + one.memory.snapshot);
  CHECK(one.fits_memory());
  c.place.memory_bytes = static_cast<int64_t>(one.host_memory_bytes) - 1;
  CHECK_FALSE(c.summary().fits_memory());
  c.place.memory_bytes = 0;
  CHECK(c.summary().fits_memory());
  c.place.world_size = c.place.ranks_of_host = 2;
  const auto two = c.summary();
  CHECK(two.host_memory_bytes == 2 * two.memory.peak + two.memory.snapshot);
  c.place.world_size = 3;
  CHECK_THROWS_WITH(c.summary(), Catch::Contains("multiple of the 3 ranks, got 2"));
}

TEST_CASE("RunSummary: on a GPU a rank's tensors are compared with the GPU's memory",
          "[train][summary]") {
  Case c;
  c.place.device_memory_bytes = 1;
  CHECK(c.summary().device_memory_bytes == 0);
  CHECK(c.summary().fits_device());
  c.config.device = DeviceKind::kCuda;
  const auto summary = c.summary();
  CHECK(summary.device_memory_bytes == summary.memory.peak);
  CHECK(summary.host_memory_bytes == summary.memory.snapshot);
  CHECK_FALSE(summary.fits_device());
  c.place.device_memory_bytes = static_cast<int64_t>(summary.memory.peak) + 1;
  CHECK(c.summary().fits_device());
  c.place.device_memory_bytes = 0;
  CHECK(c.summary().fits_device());
}

TEST_CASE("RunSummary: compares the checkpoints that are kept with the free disk",
          "[train][summary]") {
  Case c;
  c.config.train.keep_checkpoints = 2;
  c.config.train.keep_best = false;
  const auto n_bytes = 12.0 * static_cast<double>(count_parameters(c.config.model).total());
  // Saved at steps 20 and 40.
  CHECK(c.summary().kept_checkpoints == 2);
  c.config.train.save_every = 4;
  CHECK(c.summary().kept_checkpoints == 3);
  c.config.train.keep_best = true;
  c.config.train.keep_every = 20;
  auto summary = c.summary();
  CHECK(summary.kept_checkpoints == 6);
  CHECK(summary.checkpoint_disk_bytes == 6 * n_bytes);
  CHECK(summary.fits_disk());
  c.start = {.resumed_from = "step-20", .step = 20, .own_checkpoints = 4};
  CHECK(c.summary().checkpoint_disk_bytes == 2 * n_bytes);
  c.start.own_checkpoints = 9;
  CHECK(c.summary().checkpoint_disk_bytes == n_bytes);
  c.start.step = 40;
  CHECK(c.summary().checkpoint_disk_bytes == 0);
  c.start = {};
  c.place.free_disk_bytes = static_cast<int64_t>(6 * n_bytes) - 1;
  CHECK_FALSE(c.summary().fits_disk());
}

}  // namespace
}  // namespace dsmoe
