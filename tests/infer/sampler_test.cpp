#include "infer/sampler.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <map>

#include "common/error.h"

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
  const auto sampled =
      std::make_shared<const std::vector<bool>>(std::vector<bool>{true, false, true});
  const std::vector<float> logits{1, 9, 0, 9};  // the last has no entry
  CHECK(Sampler({}, 0, sampled).sample(logits, {}) == 0);
  CHECK(Sampler({.repetition_penalty = 1e3}, 0, sampled)
            .sample(logits, std::vector<int32_t>{0, 1, 3}) == 0);
  for (const auto& config : {SamplingConfig{.temperature = 1e6},
                             SamplingConfig{.temperature = 5.0, .top_k = 3},
                             SamplingConfig{.temperature = 5.0, .min_p = 0.1}}) {
    Sampler sampler(config, 0, sampled);
    std::map<int32_t, int> counts;
    for (int i = 0; i < 500; ++i) ++counts[sampler.sample(logits, {})];
    CHECK(counts.size() == 2);
    CHECK(counts[0] + counts[2] == 500);
  }
  Sampler none({}, 0, std::make_shared<const std::vector<bool>>());
  CHECK_THROWS_AS(none.sample(logits, {}), RunError);
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
