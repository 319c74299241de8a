#include "infer/sampler.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <map>
#include <numbers>
#include <string>

#include "common/error.h"
#include "common/random_seed.h"
#include "csrc_kernels/sampling_weights/kernels.h"
#include "infer/weight_index.h"
#include "sorting_sampler.h"

namespace dsmoe {
namespace {

using Catch::Matchers::Contains;

// logits of probabilities 0.5, 0.25, 0.125, 0.0625, 0.0625, in a mixed order
const std::vector<double> kProbabilities = {0.125, 0.5, 0.0625, 0.25, 0.0625};

std::vector<float> logits_of(const std::vector<double>& probabilities) {
  std::vector<float> logits;
  for (const double p : probabilities) logits.push_back(static_cast<float>(std::log(p) + 3));
  return logits;
}

// Shares of ids among many draws.
std::map<int32_t, double> frequencies(const SamplingConfig& config,
                                      const std::vector<int32_t>& seen = {}) {
  constexpr int kDraws = 40'000;
  Sampler sampler(config, 0);
  const auto logits = logits_of(kProbabilities);
  std::map<int32_t, double> shares;
  for (int i = 0; i < kDraws; ++i) shares[sampler.sample(logits, seen)] += 1.0 / kDraws;
  return shares;
}

void check_shares(const std::map<int32_t, double>& shares,
                  const std::map<int32_t, double>& expected) {
  CHECK(shares.size() == expected.size());
  for (const auto& [id, share] : expected) {
    INFO("id " << id);
    CHECK(shares.count(id) == 1);
    // Five standard deviations of 40,000 draws are at most 0.0125.
    CHECK(std::abs(shares.at(id) - share) < 0.0125);
  }
}

}  // namespace

TEST_CASE("sampling draws ids by their probabilities") {
  check_shares(frequencies({.temperature = 1.0}),
               {{0, 0.125}, {1, 0.5}, {2, 0.0625}, {3, 0.25}, {4, 0.0625}});
  // Temperature 1/2 squares probabilities: the sum of squares is 0.3359375.
  check_shares(frequencies({.temperature = 0.5}),
               {{0, 0.046512}, {1, 0.744186}, {2, 0.011628}, {3, 0.186047}, {4, 0.011628}});
}

TEST_CASE("sampling keeps what its filters keep") {
  check_shares(frequencies({.temperature = 1.0, .top_k = 2}), {{1, 2. / 3}, {3, 1. / 3}});
  check_shares(frequencies({.temperature = 1.0, .top_k = 4}),
               {{0, 2. / 15}, {1, 8. / 15}, {2, 1. / 15}, {3, 4. / 15}});  // lower id of equals
  check_shares(frequencies({.temperature = 1.0, .top_p = 0.74}), {{1, 2. / 3}, {3, 1. / 3}});
  check_shares(frequencies({.temperature = 1.0, .top_p = 0.76}),
               {{0, 1. / 7}, {1, 4. / 7}, {3, 2. / 7}});
  check_shares(frequencies({.temperature = 1.0, .top_p = 0.0}), {{1, 1.0}});
  check_shares(frequencies({.temperature = 1.0, .min_p = 0.3}), {{1, 2. / 3}, {3, 1. / 3}});
  // top_p works on what top_k left: of {1/2, 1/4} the first has two thirds.
  check_shares(frequencies({.temperature = 1.0, .top_k = 2, .top_p = 0.6}), {{1, 1.0}});
}

TEST_CASE("greedy takes the greatest logit, the lowest id among equals; seen ids are penalised") {
  Sampler greedy({}, 0);
  CHECK(greedy.sample(std::vector<float>{1, 3, 3, 2}, {}) == 1);
  CHECK(greedy.sample(std::vector<float>{-1, -3, -2}, {}) == 0);
  Sampler penalised({.repetition_penalty = 2.0}, 0);
  CHECK(penalised.sample(std::vector<float>{1.6f, 3, 0}, std::vector<int32_t>{1, 1}) == 0);
  CHECK(penalised.sample(std::vector<float>{1.4f, 3, 0}, std::vector<int32_t>{1, 1}) == 1);
  CHECK(penalised.sample(std::vector<float>{-3, -2}, std::vector<int32_t>{1}) == 0);
}

TEST_CASE("ids that may not be drawn are not, whatever their logits") {
  const auto excluded = std::make_shared<const std::vector<int32_t>>(std::vector<int32_t>{1, 3});
  const std::vector<float> logits{1, 9, 0, 9};
  CHECK(Sampler({}, 0, excluded).sample(logits, {}) == 0);
  CHECK(Sampler({.repetition_penalty = 1e3}, 0, excluded)
            .sample(logits, std::vector<int32_t>{0, 1, 3}) == 0);
  for (const auto& config : {SamplingConfig{.temperature = 1e6},
                             SamplingConfig{.temperature = 5.0, .top_k = 3},
                             SamplingConfig{.temperature = 5.0, .min_p = 0.1}}) {
    Sampler sampler(config, 0, excluded);
    std::map<int32_t, int> counts;
    for (int i = 0; i < 500; ++i) ++counts[sampler.sample(logits, {})];
    CHECK(counts.size() == 2);
    CHECK(counts[0] + counts[2] == 500);
  }
  const auto all = std::make_shared<const std::vector<int32_t>>(std::vector<int32_t>{0, 1, 2, 3});
  CHECK_THROWS_AS(Sampler({}, 0, all).sample(logits, {}), RunError);
}

TEST_CASE("draws depend on seed, sequence and count, nothing else") {
  const SamplingConfig config{.temperature = 1.0, .seed = 9};
  const auto logits = logits_of(kProbabilities);
  const auto draw = [&](const SamplingConfig& of, int64_t sequence) {
    Sampler sampler(of, sequence);
    std::vector<int32_t> ids;
    for (int i = 0; i < 50; ++i) ids.push_back(sampler.sample(logits, {}));
    return ids;
  };
  CHECK(draw(config, 3) == draw(config, 3));
  CHECK(draw(config, 3) != draw(config, 4));
  CHECK(draw(config, 3) != draw({.temperature = 1.0, .seed = 10}, 3));
}

namespace {

// [n] approximately normal, from a seed.
std::vector<float> normal_logits(size_t n, double deviation, uint64_t seed) {
  std::vector<float> logits(n);
  for (size_t i = 0; i < n; ++i) {
    double sum = -6;  // of twelve numbers in [0, 1)
    for (uint64_t j = 0; j < 12; ++j) {
      sum += static_cast<double>(mix_bits(seed + 12 * i + j) >> 11) * 0x1p-53;
    }
    logits[i] = static_cast<float>(deviation * sum);
  }
  return logits;
}

// As bfloat16 gives them: many are equal.
std::vector<float> round_to_grid(std::vector<float> logits, float step) {
  for (auto& logit : logits) logit = std::round(logit / step) * step;
  return logits;
}

struct NamedLogits {
  std::string name;
  std::vector<float> logits;
};

std::vector<NamedLogits> various_logits() {
  auto peak = normal_logits(2000, 2, 7);
  peak[1234] = 40;
  auto far = normal_logits(2000, 300, 8);  // most weights are 0
  far[17] = far[1999] = 2000;
  auto nearly_equal = std::vector<float>(2000, 0.0F);
  for (size_t i = 0; i < nearly_equal.size(); ++i) nearly_equal[i] = 1e-20F * static_cast<float>(i);
  return {{"one", {3}},
          {"two", {-1, 2}},
          {"flat", std::vector<float>(300, 1.5F)},
          {"nearly equal", nearly_equal},
          {"narrow", normal_logits(3000, 0.5, 1)},
          {"wide", normal_logits(3000, 3, 2)},
          {"vocabulary", normal_logits(32000, 2.5, 3)},
          {"large vocabulary", round_to_grid(normal_logits(128256, 2.5, 6), 0x1p-8F)},
          {"grid", round_to_grid(normal_logits(5000, 3, 4), 0.125F)},
          {"coarse grid", round_to_grid(normal_logits(5000, 3, 5), 2.0F)},
          {"peak", peak},
          {"far", far}};
}

}  // namespace

TEST_CASE("Sampler: draws what sorting the vocabulary draws", "[sampler]") {
  const auto excluded = std::make_shared<const std::vector<int32_t>>(std::vector<int32_t>{1, 5, 6});
  const std::vector<int32_t> seen{0, 2, 3, 200, 201, 202, 200};
  for (const auto& [name, logits] : various_logits()) {
    const bool has_seen = logits.size() > 250;
    for (const double temperature : {0.05, 0.8, 3.0, 1e6}) {
      for (const double top_p : {1.0, 0.95, 0.5, 0.0}) {
        for (const double min_p : {0.0, 0.02, 1.0}) {
          for (const int64_t top_k : {0, 40}) {
            SamplingConfig config{.temperature = temperature,
                                  .top_k = top_k,
                                  .top_p = top_p,
                                  .min_p = min_p,
                                  .repetition_penalty = has_seen ? 1.3 : 1.0,
                                  .seed = 11};
            Sampler sampler(config, 2, has_seen ? excluded : nullptr);
            SortingSampler reference(config, 2, has_seen ? excluded : nullptr);
            const auto ids = has_seen ? seen : std::vector<int32_t>{};
            CAPTURE(name, temperature, top_p, min_p, top_k);
            bool same = true;
            for (int i = 0; i < (logits.size() > 10'000 ? 1 : 4); ++i) {
              same = same && sampler.sample(logits, ids) == reference.sample(logits, ids);
            }
            CHECK(same);
          }
        }
      }
    }
  }
}

TEST_CASE("WeightIndex: finds sums without sorting, and leaves to sorting what rounding decides",
          "[sampler]") {
  const auto normal = normal_logits(20'000, 2.5, 9);
  const AdjustedLogits logits(normal, nullptr, {}, 1.0);
  const WeightIndex index(logits, 0.8);
  double last = 2;
  for (double share = 0; share < 0.9999; share += 0.0007) {
    const auto prefix = index.reach(share * index.total());
    REQUIRE(prefix);
    CHECK(prefix->sum >= share * index.total());
    CHECK(prefix->last.weight <= last);
    last = prefix->last.weight;
    const auto down = index.sum_down_to(last);
    REQUIRE(down);
    CHECK(*down == Approx(prefix->sum).epsilon(1e-12));
  }
  CHECK_FALSE(index.reach(index.total()));
  const std::vector<float> equal(8, 1.0F);
  const AdjustedLogits equal_logits(equal, nullptr, {}, 1.0);
  const WeightIndex flat(equal_logits, 1.0);
  CHECK_FALSE(flat.reach(3.0));
  CHECK_FALSE(flat.reach(std::nextafter(3.0, 4.0)));
  CHECK_FALSE(flat.reach(std::nextafter(3.0, 2.0)));
  CHECK(flat.reach(3.5)->last.id == 3);
}

TEST_CASE("WeightIndex: equal weights in two buckets are ordered by id, or left to sorting",
          "[sampler]") {
  // Logits -0.5 and -penalty have equal weights; the edge of two buckets is put between them.
  const std::vector<float> raw{0, -0.5F, -1};
  const double penalty = std::nextafter(0.5, 0.0);
  const auto bucket = [](double logit, double temperature) {
    return std::nearbyint(-logit * (kBucketsPerOctave / (std::numbers::ln2 * temperature)));
  };
  const double at_edge = kBucketsPerOctave / std::numbers::ln2;
  double temperature = at_edge * (1 - 1e-14);
  while (bucket(-0.5, temperature) == bucket(-penalty, temperature)) {
    REQUIRE(temperature < at_edge * (1 + 1e-14));
    temperature = std::nextafter(temperature, 2 * temperature);
  }
  const AdjustedLogits logits(raw, nullptr, std::vector<int32_t>{2}, penalty);
  const WeightIndex index(logits, temperature);
  const auto first = index.first(3);
  CHECK(first[1].weight == first[2].weight);
  CHECK(first[1].id == 1);
  CHECK(index.first(2)[1].id == 1);
  CHECK_FALSE(index.reach(1.5));
}

TEST_CASE("sampling options out of range and logits that are not finite are refused") {
  CHECK_THROWS_WITH((SamplingConfig{.temperature = -1}.validate()), Contains("--temperature"));
  CHECK_THROWS_WITH((SamplingConfig{.temperature = std::nan("")}.validate()), Contains("--temp"));
  CHECK_THROWS_WITH((SamplingConfig{.top_k = -1}.validate()), Contains("--top-k"));
  CHECK_THROWS_WITH((SamplingConfig{.top_p = 1.1}.validate()), Contains("--top-p"));
  CHECK_THROWS_WITH((SamplingConfig{.min_p = -0.1}.validate()), Contains("--min-p"));
  CHECK_THROWS_WITH((SamplingConfig{.repetition_penalty = 0}.validate()), Contains("--repetition"));
  Sampler sampler({}, 0);
  const float infinity = std::numeric_limits<float>::infinity();
  CHECK_THROWS_AS(sampler.sample(std::vector<float>{1, infinity}, {}), RunError);
  CHECK_THROWS_AS(sampler.sample(std::vector<float>{1, std::nanf("")}, {}), RunError);
}

}  // namespace dsmoe
