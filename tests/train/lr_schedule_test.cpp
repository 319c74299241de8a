#include "train/lr_schedule.h"

#include <catch2/catch.hpp>
#include <cmath>

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

TEST_CASE("learning_rate: the last step is above the final ratio as train.schedule states it",
          "[train][lr_schedule]") {
  // The sentence of final_ratio: 0.1 would be reached one step after the last.
  auto config = schedule(ScheduleKind::kWsd);
  config.warmup_steps = 0;
  config.decay_steps = 20;
  config.total_steps = 20;
  CHECK(learning_rate(config, 19) == Approx(0.145).epsilon(1e-12));
  CHECK(learning_rate(config, 19) == Approx(0.1 + 0.9 / 20).epsilon(1e-12));
  CHECK(learning_rate(config, 20) == Approx(0.1).epsilon(1e-12));
  config.decay_shape = DecayShape::kOneMinusSqrt;
  CHECK(learning_rate(config, 19) ==
        Approx(0.1 + 0.9 * (1 - std::sqrt(1 - 1.0 / 20))).epsilon(1e-12));
  // Of decay_steps: its first step still has the peak.
  config.total_steps = 100;
  CHECK(learning_rate(config, 80) == 1.0);
  CHECK(learning_rate(config, 81) < 1.0);

  for (const int64_t n : {10, 100, 1000}) {
    auto cosine = schedule(ScheduleKind::kCosine);
    cosine.total_steps = cosine.warmup_steps + n;
    const double above = (learning_rate(cosine, cosine.total_steps - 1) - 0.1) / 0.9;
    CHECK(above == Approx(2.5 / static_cast<double>(n * n)).epsilon(0.03));
    CHECK(above ==
          Approx(0.5 * (1 - std::cos(std::acos(-1.0) / static_cast<double>(n)))).margin(1e-12));
  }
  auto constant = schedule(ScheduleKind::kConstant);
  CHECK(learning_rate(constant, constant.total_steps - 1) == 1.0);
  auto flat = schedule(ScheduleKind::kWsd);
  flat.decay_steps = 0;
  CHECK(learning_rate(flat, flat.total_steps - 1) == 1.0);
  // Of warmup_steps: step n, counted from 1, takes peak * n / warmup_steps.
  for (int64_t n = 1; n <= 4; ++n) {
    CHECK(learning_rate(constant, n - 1) == Approx(static_cast<double>(n) / 4).epsilon(1e-12));
  }
}

TEST_CASE("learning_rate: no warm-up starts at the peak", "[train][lr_schedule]") {
  auto config = schedule(ScheduleKind::kCosine);
  config.warmup_steps = 0;
  CHECK(learning_rate(config, 0) == Approx(1.0));
  CHECK_THROWS_AS(learning_rate(config, -1), Error);
}

}  // namespace
}  // namespace dsmoe
