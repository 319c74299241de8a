#include "data/sample_order.h"

#include <catch2/catch.hpp>
#include <vector>

#include "common/error.h"

using namespace dsmoe;

TEST_CASE("SampleOrder: each epoch holds every sample exactly once", "[data][order]") {
  for (const int64_t n : {1, 2, 3, 4, 5, 16, 17, 63, 65, 1000, 4097}) {
    const SampleOrder order(n, 7);
    for (int64_t epoch = 0; epoch < 3; ++epoch) {
      std::vector<int> seen(static_cast<size_t>(n), 0);
      for (int64_t i = 0; i < n; ++i) {
        const auto place = order.at(epoch * n + i);
        REQUIRE(place.epoch == epoch);
        REQUIRE((place.index >= 0 && place.index < n));
        ++seen[static_cast<size_t>(place.index)];
      }
      REQUIRE(seen == std::vector<int>(static_cast<size_t>(n), 1));
    }
  }
}

TEST_CASE("SampleOrder: epochs and seeds have different orders", "[data][order]") {
  constexpr int64_t kSamples = 1000;
  const SampleOrder order(kSamples, 7);
  const SampleOrder other(kSamples, 8);
  int same_epoch = 0;
  int same_seed = 0;
  int in_place = 0;
  for (int64_t i = 0; i < kSamples; ++i) {
    same_epoch += order.at(i).index == order.at(kSamples + i).index;
    same_seed += order.at(i).index == other.at(i).index;
    in_place += order.at(i).index == i;
  }
  // Random permutations agree in one place on average; 10 has a probability of about 1e-7.
  REQUIRE(same_epoch < 10);
  REQUIRE(same_seed < 10);
  REQUIRE(in_place < 10);
}

TEST_CASE("SampleOrder: a sample depends on seed and position only", "[data][order]") {
  const SampleOrder order(100, 3);
  const auto late = order.at(250);
  const SampleOrder fresh(100, 3);
  REQUIRE(fresh.at(250).index == late.index);
  REQUIRE(fresh.at(250).epoch == 2);
  REQUIRE_THROWS_AS(SampleOrder(0, 3), Error);
}
