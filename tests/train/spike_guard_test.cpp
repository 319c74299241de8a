#include "train/spike_guard.h"

#include <catch2/catch.hpp>
#include <limits>

#include "common/error.h"

namespace dsmoe {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

GuardConfig four_steps() {
  GuardConfig config;
  config.spike_window = 4;
  config.spike_z = 3;
  config.max_skips = 3;
  return config;
}

// Losses 2 and 4 in turn: mean 3, standard deviation 1; norms 1 and 1.
SpikeGuard full_guard() {
  SpikeGuard guard(four_steps());
  for (const double loss : {2.0, 4.0, 2.0, 4.0}) guard.accept(loss, 1.0);
  return guard;
}

TEST_CASE("SpikeGuard: the bound is z standard deviations above the mean", "[train][guard]") {
  const auto guard = full_guard();
  CHECK_FALSE(guard.judge(6.0, 1.0));
  CHECK_FALSE(guard.judge(-100.0, 1.0));
  REQUIRE(guard.judge(6.001, 1.0));
  CHECK_THAT(*guard.judge(7.0, 1.0),
             Catch::Contains("loss 7 is 4.0 standard deviations above the mean 3 of 4 steps"));
  CHECK_THAT(*guard.judge(3.0, 1.1), Catch::Contains("gradient norm"));  // equal values, no scale
  CHECK_FALSE(guard.judge(3.0, 1.0));
}

TEST_CASE("SpikeGuard: a NaN or Inf is a spike for every window", "[train][guard]") {
  auto config = four_steps();
  for (const double bad : {kNan, kInf, -kInf}) {
    CHECK(SpikeGuard(config).judge(bad, 1.0));
    CHECK(full_guard().judge(bad, 1.0));
    CHECK(full_guard().judge(1.0, bad));
    config.spike_z = 0;
    CHECK(SpikeGuard(config).judge(bad, 1.0));
  }
  // A window that contains a NaN would accept no value.
  SpikeGuard poisoned(four_steps());
  for (int i = 0; i < 4; ++i) poisoned.accept(kNan, 1.0);
  CHECK(poisoned.judge(1.0, 1.0));
}

TEST_CASE("SpikeGuard: no finite value is a spike before the window is full or with z = 0",
          "[train][guard]") {
  SpikeGuard young(four_steps());
  for (int i = 0; i < 3; ++i) young.accept(1.0, 1.0);
  CHECK_FALSE(young.judge(1e9, 1.0));
  young.accept(1.0, 1.0);
  CHECK(young.judge(1e9, 1.0));
  auto config = four_steps();
  config.spike_z = 0;
  SpikeGuard off(config);
  for (int i = 0; i < 9; ++i) off.accept(1.0, 1.0);
  CHECK_FALSE(off.judge(1e9, 1e9));
}

TEST_CASE("SpikeGuard: the window slides, and its values are the state", "[train][guard]") {
  auto guard = full_guard();
  for (int i = 0; i < 4; ++i) guard.accept(100.0 + i % 2, 1.0);
  CHECK(guard.history().losses == std::vector<double>{100, 101, 100, 101});
  CHECK_FALSE(guard.judge(101.0, 1.0));
  SpikeGuard other(four_steps());
  other.restore(guard.history());
  CHECK(other.judge(103.0, 1.0) == guard.judge(103.0, 1.0));
  CHECK(other.judge(103.0, 1.0));
}

TEST_CASE("SpikeGuard: skips are counted, and too many in a row stop the run", "[train][guard]") {
  auto guard = full_guard();
  guard.skip(kNan, 1.0);
  guard.skip(3.0, kInf);
  CHECK(guard.history().losses == full_guard().history().losses);
  guard.accept(3.0, 1.0);
  guard.skip(kNan, 1.0);
  guard.skip(kNan, 1.0);
  CHECK(guard.history().skipped_steps == 4);
  CHECK_NOTHROW(guard.check_skips());
  guard.skip(kNan, 1.0);
  CHECK_THROWS_WITH(guard.check_skips(),
                    Catch::Contains("3 steps in a row") && Catch::Contains("max_skips"));
}

TEST_CASE("SpikeGuard: a new level of the loss is a spike for some steps, not for ever",
          "[train][guard]") {
  auto guard = full_guard();
  int n_spikes = 0;
  for (int i = 0; i < 6; ++i) {
    if (guard.judge(100.0, 1.0)) {
      ++n_spikes;
      guard.skip(100.0, 1.0);
    } else {
      guard.accept(100.0, 1.0);
    }
  }
  CHECK(n_spikes == 1);  // 100 among 4, 2, 4 is not far from their mean in their deviations
  CHECK(guard.history().losses == std::vector<double>(4, 100.0));
}

}  // namespace
}  // namespace dsmoe
