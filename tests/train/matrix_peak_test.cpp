#include "train/matrix_peak.h"

#include <catch2/catch.hpp>
#include <nlohmann/json.hpp>

#include "common/io.h"
#include "support/temporary_directory.h"
#include "train/tiny_run.h"
#include "train/trainer.h"

namespace dsmoe {
namespace {

TEST_CASE("ProductTime: a product is quiet if its threads had their processors", "[train][mfu]") {
  CHECK(ProductTime{.wall_seconds = 0.1, .cpu_seconds = 0.2, .threads = 2}.is_quiet());
  CHECK(ProductTime{.wall_seconds = 0.1, .cpu_seconds = 0.181, .threads = 2}.is_quiet());
  CHECK_FALSE(ProductTime{.wall_seconds = 0.1, .cpu_seconds = 0.179, .threads = 2}.is_quiet());
  CHECK_FALSE(ProductTime{.wall_seconds = 0.1, .cpu_seconds = 0.05, .threads = 1}.is_quiet());
}

TEST_CASE("MatrixPeak: keeps the best speed of each machine and dtype in its file",
          "[train][mfu]") {
  const TemporaryDirectory directory;
  const auto path = directory.file("cache/dsmoe/peaks.json");
  {
    MatrixPeak peak(path, "cpu, float32");
    CHECK_FALSE(peak.flops_per_second());
    CHECK_FALSE(peak.share_of(5e9));  // nothing to compare with
    CHECK_FALSE(peak.flops_per_second());
    peak.add(100e9);
    peak.add(60e9);
  }
  MatrixPeak(path, "cpu, bfloat16").add(300e9);
  CHECK(MatrixPeak(path, "cpu, float32").flops_per_second() == 100e9);
  CHECK(MatrixPeak(path, "cpu, bfloat16").flops_per_second() == 300e9);
  CHECK_FALSE(MatrixPeak(path, "other, float32").flops_per_second());
}

TEST_CASE("MatrixPeak: a speed above the peak becomes the peak, so no share is above 1",
          "[train][mfu]") {
  const TemporaryDirectory directory;
  const auto path = directory.file("peaks.json");
  MatrixPeak peak(path, "cpu");
  peak.add(100e9);
  CHECK(peak.share_of(25e9) == 0.25);
  CHECK(peak.share_of(200e9) == 1.0);
  CHECK(peak.share_of(50e9) == 0.25);
  CHECK(MatrixPeak(path, "cpu").flops_per_second() == 200e9);
}

TEST_CASE("MatrixPeak: a file that is no cache counts as absent", "[train][mfu]") {
  const TemporaryDirectory directory;
  for (const char* text : {"no json", "[1]", "{\"cpu\": \"fast\"}", "{\"cpu\": -1}", ""}) {
    write_file(posix_io(), directory.file("peaks.json"), text);
    MatrixPeak peak(directory.file("peaks.json"), "cpu");
    CHECK_FALSE(peak.flops_per_second());
    peak.add(1e9);
    CHECK(MatrixPeak(directory.file("peaks.json"), "cpu").flops_per_second() == 1e9);
  }
  write_file(posix_io(), directory.file("file"), "");
  MatrixPeak unwritable(directory.file("file/peaks.json"), "cpu");
  unwritable.add(1e9);
  CHECK(unwritable.flops_per_second() == 1e9);
}

TEST_CASE("Trainer: MFU is the speed of a rank over the peak, and absent without one",
          "[train][mfu]") {
  const TemporaryDirectory directory;
  const auto shards = make_tiny_shards(directory, 700);
  auto config = tiny_run(directory.file("none"), shards);
  config.train.steps = 2;
  CHECK_FALSE(Trainer(posix_io(), config, "none").run().last->mfu);
  config.run_dir = directory.file("some");
  auto peak = std::make_shared<MatrixPeak>("", "test");
  peak->add(1e20);  // above any measurement
  const auto last = Trainer(posix_io(),
                            config,
                            "none",
                            at::kCPU,
                            std::make_shared<RankGroup>(),
                            {.clock = system_seconds, .peak = peak})
                        .run()
                        .last;
  REQUIRE(last->mfu);
  CHECK(*last->mfu == Approx(last->flops_per_second / 1e20));
}

TEST_CASE("Trainer: FLOP/s count the experts that sparse training computes", "[train][mfu]") {
  const TemporaryDirectory directory;
  const auto shards = make_tiny_shards(directory, 700);
  const auto flops_per_token = [&](const std::string& policy) {
    auto config = tiny_run(directory.file(policy), shards);
    config.train.steps = 2;
    config.model.training_policy = policy;
    const auto last = *Trainer(posix_io(), config, "none").run().last;
    return last.flops_per_second / last.tokens_per_second;
  };
  // Of 4 experts in each of 2 layers 3 are not computed: 2 matrices of 12 x 5 each, forward and
  // backward.
  CHECK(flops_per_token("all") - flops_per_token("moe:top_k=1;moa:all") ==
        Approx(3.0 * 2.0 * 2 * 3 * (2 * 12 * 5)));
}

}  // namespace
}  // namespace dsmoe
