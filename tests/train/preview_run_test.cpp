#include <catch2/catch.hpp>
#include <filesystem>

#include "common/error.h"
#include "common/run_lock.h"
#include "train/tiny_run.h"
#include "train/trainer.h"

namespace dsmoe {
namespace {

namespace fs = std::filesystem;
using Catch::Contains;

struct PreviewCase {
  TemporaryDirectory directory;
  std::string shards = make_tiny_shards(directory);
  RunConfig config = tiny_run(directory.file("run"), shards);

  RunSummary preview(const std::string& resume = "auto") const {
    return preview_run(posix_io(), resolve_run(config), resume);
  }
  std::string error(const std::string& resume = "auto") const {
    try {
      preview(resume);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  }
  TrainResult train() const {
    Trainer trainer(posix_io(), resolve_run_config(config), "auto");
    return trainer.run();
  }
};

TEST_CASE("preview_run: a new run begins at step 0 and nothing is written", "[train][preview]") {
  const PreviewCase c;
  const auto summary = c.preview();
  CHECK(summary.start.resumed_from.empty());
  CHECK(summary.start.step == 0);
  CHECK(summary.threads == 1);
  CHECK(summary.dtype == "float32");
  CHECK(summary.place.memory_bytes > 0);
  CHECK(summary.place.free_disk_bytes > 0);
  CHECK_FALSE(fs::exists(c.config.run_dir));
}

TEST_CASE("preview_run: refuses what a start refuses", "[train][preview]") {
  PreviewCase c;
  c.config.data.validation = c.directory.file("none.txt");
  CHECK_THAT(c.error(), Contains("none.txt"));
  c.config.data.validation = "";
  CHECK_THAT(c.error(c.directory.file("gone")), Contains("gone"));
  fs::create_directories(c.config.run_dir);
  write_file(posix_io(), c.config.run_dir + "/metrics.jsonl", "mine");
  CHECK_THAT(c.error(), Contains("run_dir") && Contains("metrics.jsonl"));
  CHECK_THROWS_WITH(preview_run(posix_io(), resolve_run(c.config), "auto", 3, 3),
                    Contains("metrics.jsonl"));
  fs::remove(c.config.run_dir + "/metrics.jsonl");
  CHECK_THROWS_WITH(preview_run(posix_io(), resolve_run(c.config), "auto", 3, 3),
                    Contains("a multiple of the 3 ranks"));
}

TEST_CASE("preview_run: a run that exists is compared and not read", "[train][preview]") {
  PreviewCase c;
  c.config.train.steps = 4;
  c.config.train.schedule.warmup_steps = 2;
  c.train();
  c.config.train.steps = 8;
  auto summary = c.preview();
  CHECK(summary.start.step == 4);
  CHECK_THAT(summary.start.resumed_from, Contains("step-"));
  CHECK(summary.start.own_checkpoints == 1);
  CHECK_THAT(c.error("none"), Contains("has checkpoints of another run"));

  c.config.train.batch_size = 1;
  CHECK_THAT(c.error(), Contains("train.batch_size: expected 2 as in the checkpoint, got 1"));
  c.config.train.batch_size = 2;
  {
    const RunLock lock(posix_io(), c.config.run_dir);
    CHECK_THAT(c.error(), Contains("in use by"));
  }
  // Weights are the one thing that is not looked at.
  fs::resize_file(summary.start.resumed_from + "/model-00001-of-00001.safetensors", 10);
  CHECK(c.preview().start.step == 4);
  fs::remove(summary.start.resumed_from + "/manifest.json");
  CHECK_THAT(c.error(), Contains("manifest.json"));
}

TEST_CASE("resolve_run: epochs are passes over the data, and the same config resumes",
          "[train][preview]") {
  PreviewCase c;
  c.config.train.epochs = 0.25;  // 375.25 of 1501 tokens, 64 a step
  c.config.train.schedule.warmup = "50%";
  const auto run = resolve_run(c.config);
  CHECK(run.config.train.steps == 6);
  CHECK(run.config.train.schedule.warmup_steps == 3);
  CHECK(run.config.train.epochs == 0);
  REQUIRE(run.notes.size() == 2);
  CHECK_THAT(run.notes[0], Contains("train.steps = 6: epochs = 0.25, 1501 tokens each, 64 a step"));
  CHECK(c.preview().epochs == Approx(6 * 64 / 1501.0));

  CHECK(c.train().step == 6);
  const auto again = c.preview();
  CHECK(again.start.step == 6);
  CHECK(again.steps == 6);
  CHECK(c.train().step == 6);
  // The same length said in tokens is the same run.
  c.config.train.epochs = 0;
  c.config.train.tokens = 6 * 64;
  CHECK(c.preview().start.step == 6);
  c.config.train.tokens = 7 * 64;
  CHECK(c.train().step == 7);
}

}  // namespace
}  // namespace dsmoe
