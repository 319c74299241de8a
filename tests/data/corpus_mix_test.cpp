#include "data/corpus_mix.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>

#include "common/error.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;

const std::vector<std::vector<double>> kMixes = {{1},
                                                 {1, 1},
                                                 {0.7, 0.3},
                                                 {3, 1},
                                                 {1, 2, 3},
                                                 {0.001, 0.999},
                                                 {5, 1, 1, 1, 0.25},
                                                 {1e-3, 1, 1e3}};

double share_of(const std::vector<double>& weights, size_t corpus) {
  double sum = 0;
  for (const double weight : weights) sum += weight;
  return weights[corpus] / sum;
}

}  // namespace

TEST_CASE("corpus mix: each corpus gives its samples 0, 1, 2, ... without a gap") {
  for (const auto& weights : kMixes) {
    const CorpusMix mix(weights);
    std::vector<int64_t> next(weights.size(), 0);
    for (int64_t position = 0; position < 5000; ++position) {
      const auto place = mix.at(position);
      REQUIRE(place.corpus < weights.size());
      REQUIRE(place.position == next[place.corpus]++);
    }
  }
}

TEST_CASE("corpus mix: every window keeps the shares up to ceil(log2(n_corpora)) samples") {
  constexpr int64_t kSamples = 600;
  for (const int64_t from : {int64_t{0}, int64_t{123'456'789'012}}) {
    for (const auto& weights : kMixes) {
      const CorpusMix mix(weights);
      const double bound = std::ceil(std::log2(static_cast<double>(weights.size())));
      for (size_t corpus = 0; corpus < weights.size(); ++corpus) {
        std::vector<int64_t> counts{0};  // of the first n samples
        for (int64_t i = 0; i < kSamples; ++i) {
          counts.push_back(counts.back() + (mix.at(from + i).corpus == corpus ? 1 : 0));
        }
        double worst = 0;
        for (size_t begin = 0; begin < counts.size(); ++begin) {
          for (size_t end = begin; end < counts.size(); ++end) {
            const double expected = share_of(weights, corpus) * static_cast<double>(end - begin);
            const auto got = static_cast<double>(counts[end] - counts[begin]);
            worst = std::max(worst, std::abs(got - expected));
          }
        }
        INFO("corpus " << corpus << " of " << weights.size() << " from " << from);
        CHECK(worst <= bound + kSamples / 4294967296.0);
      }
    }
  }
}

TEST_CASE("corpus mix: only positive weights count") {
  CHECK_THROWS_WITH(CorpusMix({}), Contains("at least one corpus"));
  CHECK_THROWS_WITH(CorpusMix({1, 0}), Contains("above 0, got 0"));
  CHECK_THROWS_AS(CorpusMix({1, -1}), Error);
  CHECK_THROWS_AS(CorpusMix({std::numeric_limits<double>::quiet_NaN()}), Error);
  CHECK_THROWS_AS(CorpusMix({std::numeric_limits<double>::infinity(), 1}), Error);
}

}  // namespace dsmoe
