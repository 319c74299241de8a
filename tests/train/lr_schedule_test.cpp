#include "train/lr_schedule.h"

#include <catch2/catch.hpp>

#include "common/error.h"

namespace dsmoe {
namespace {

ScheduleConfig schedule(ScheduleKind kind) {
  ScheduleConfig config;
  config.kind = kind;
  config.peak = 1.0;
  config.final_ratio = 0.1;
  config.warmup_steps = 4;
  config.total_steps = 104;
  config.decay_steps = 20;
  return config;
}

TEST_CASE("learning_rate: warm-up rises linearly to the peak", "[train][lr_schedule]") {
  const auto config = schedule(ScheduleKind::kConstant);
  CHECK(learning_rate(config, 0) == Approx(0.25));
  CHECK(learning_rate(config, 1) == Approx(0.5));
  CHECK(learning_rate(config, 3) == Approx(1.0));
  CHECK(learning_rate(config, 4) == Approx(1.0));
  CHECK(learning_rate(config, 5000) == Approx(1.0));
}

TEST_CASE("learning_rate: cosine passes the middle and ends at the ratio", "[train][lr_schedule]") {
  const auto config = schedule(ScheduleKind::kCosine);
  CHECK(learning_rate(config, 4) == Approx(1.0));
  CHECK(learning_rate(config, 54) == Approx(0.55));
  CHECK(learning_rate(config, 29) == Approx(0.1 + 0.9 * 0.5 * (1 + 0.70710678)));
  CHECK(learning_rate(config, 104) == Approx(0.1));
  CHECK(learning_rate(config, 200) == Approx(0.1));
}

TEST_CASE("learning_rate: wsd stays, then decays over the last steps", "[train][lr_schedule]") {
  auto config = schedule(ScheduleKind::kWsd);
  CHECK(learning_rate(config, 84) == Approx(1.0));
  CHECK(learning_rate(config, 89) == Approx(0.1 + 0.9 * 0.75));
  CHECK(learning_rate(config, 104) == Approx(0.1));
  config.decay_shape = DecayShape::kOneMinusSqrt;
  CHECK(learning_rate(config, 84) == Approx(1.0));
  CHECK(learning_rate(config, 89) == Approx(0.1 + 0.9 * 0.5));
  CHECK(learning_rate(config, 104) == Approx(0.1));
  config.decay_steps = 0;
  CHECK(learning_rate(config, 103) == Approx(1.0));
}

TEST_CASE("learning_rate: no warm-up starts at the peak", "[train][lr_schedule]") {
  auto config = schedule(ScheduleKind::kCosine);
  config.warmup_steps = 0;
  CHECK(learning_rate(config, 0) == Approx(1.0));
  CHECK_THROWS_AS(learning_rate(config, -1), Error);
}

}  // namespace
}  // namespace dsmoe
