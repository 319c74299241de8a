#include "train/replica_check.h"

#include <ATen/ops/arange.h>

#include <catch2/catch.hpp>

#include "common/error.h"
#include "support/fake_backend.h"
#include "support/rank_threads.h"
#include "train/tiny_run.h"
#include "train/trainer.h"

namespace dsmoe {
namespace {

void flip_lowest_bit(const at::Tensor& tensor, int64_t element) {
  static_cast<uint32_t*>(tensor.data_ptr())[element] ^= 1;
}

// The error of each of `size` ranks for its tensors, `b` with a flipped bit on some of them.
std::vector<std::string> check_with_flips(int64_t size,
                                          const std::vector<int64_t>& flipped,
                                          const MakeBackend& make_backend = gloo_backend()) {
  std::vector<std::string> errors(static_cast<size_t>(size));
  const auto check = [&](RankGroup& group) {
    const auto a = at::arange(10, at::kFloat);
    const auto b = at::arange(1000, at::kFloat);
    if (std::find(flipped.begin(), flipped.end(), group.rank()) != flipped.end()) {
      flip_lowest_bit(b, 637);
    }
    try {
      check_replicas(group, {{"a", a}, {"b", b}, {"c", b.clone()}}, 12);
    } catch (const RunError& error) {
      errors[static_cast<size_t>(group.rank())] = error.what();
    }
  };
  run_ranks(size, check, {.setup_timeout_seconds = 20, .step_timeout_seconds = 20}, make_backend);
  return errors;
}

TEST_CASE("check_replicas: equal weights pass", "[train]") {
  CHECK(check_with_flips(3, {}) == std::vector<std::string>(3));
}

TEST_CASE("check_replicas: every rank reports a flipped bit by parameter and rank", "[train]") {
  for (const int64_t rank : {0, 1, 2}) {
    for (const auto& error : check_with_flips(3, {rank})) {
      CHECK_THAT(error,
                 Catch::StartsWith("step 12: expected the same weights on every rank, got others "
                                   "in 'b' on rank " +
                                   std::to_string(rank) + ";"));
    }
  }
  FakeNetwork network(3);
  for (const auto& error : check_with_flips(3, {2}, network.make_backend())) {
    CHECK_THAT(error, Catch::Contains("in 'b' on rank 2;"));
  }
  // With two ranks there is no majority.
  for (const auto& error : check_with_flips(2, {0})) {
    CHECK_THAT(error, Catch::Contains("in 'b' on rank 1;"));
  }
}

TEST_CASE("Trainer: a bit that flips on one rank stops the run at the next check", "[train]") {
  const TemporaryDirectory directory;
  auto config = tiny_run(directory.file("run"), make_tiny_shards(directory, 700));
  config.train.steps = 12;
  config.distributed.check_every = GENERATE(5, 0);
  std::vector<std::string> errors(2);
  run_ranks(2, [&](RankGroup& group) {
    try {
      Trainer trainer(
          posix_io(), config, "none", at::kCPU, std::shared_ptr<RankGroup>(&group, [](RankGroup*) {
          }));
      for (int64_t step = 1; trainer.step(); ++step) {
        if (step != 7 || group.rank() == 0) continue;
        flip_lowest_bit(named_parameters(*trainer.model()).at(3).second, 1);
      }
      trainer.finish();
    } catch (const RunError& error) {
      errors[static_cast<size_t>(group.rank())] = error.what();
    }
  });
  for (const auto& error : errors) {
    if (config.distributed.check_every == 0) {
      CHECK(error.empty());
    } else {
      CHECK_THAT(error,
                 Catch::Contains("step 10: expected the same weights on every rank, got") &&
                     Catch::Contains("on rank 1;"));
    }
  }
}

}  // namespace
}  // namespace dsmoe
