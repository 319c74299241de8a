#include "eval/time_model.h"

#include <catch2/catch.hpp>
#include <cmath>

namespace dsmoe {
namespace {

std::vector<TimedExperts> timed(const TimeModel& truth, const std::vector<ExpertCounts>& plans) {
  std::vector<TimedExperts> points;
  for (const auto& plan : plans) {
    points.push_back(
        {plan,
         truth.fixed_ms + truth.ms_per_moe_expert * plan.moe + truth.ms_per_moa_expert * plan.moa});
  }
  return points;
}

double loss(const TimeModel& model, const std::vector<TimedExperts>& points) {
  double sum = 0;
  for (const auto& point : points) sum += std::pow(model.ms(point.experts) / point.ms - 1, 2);
  return sum;
}

}  // namespace

TEST_CASE("fit_time_model: the parts of exact times are found") {
  const TimeModel truth{.fixed_ms = 0.3, .ms_per_moe_expert = 0.01, .ms_per_moa_expert = 0.05};
  const auto model = fit_time_model(timed(truth, {{64, 16}, {40, 16}, {20, 11}, {9, 8}, {4, 5}}));
  CHECK(model.fixed_ms == Approx(0.3).epsilon(1e-9));
  CHECK(model.ms_per_moe_expert == Approx(0.01).epsilon(1e-9));
  CHECK(model.ms_per_moa_expert == Approx(0.05).epsilon(1e-9));
}

TEST_CASE("fit_time_model: no model nearby has less of squared relative error") {
  const std::vector<TimedExperts> points = {{{64, 16}, 2.0},
                                            {{40, 16}, 1.3},
                                            {{20, 11}, 1.1},
                                            {{9, 8}, 0.7},
                                            {{4, 5}, 0.6},
                                            {{4, 9}, 0.9}};
  const auto best = fit_time_model(points);
  for (const double step : {-1e-4, 1e-4}) {
    for (double TimeModel::*term :
         {&TimeModel::fixed_ms, &TimeModel::ms_per_moe_expert, &TimeModel::ms_per_moa_expert}) {
      auto other = best;
      other.*term += step;
      CHECK(loss(other, points) > loss(best, points));
    }
  }
}

TEST_CASE("fit_time_model: what does not vary by itself gets no cost of its own") {
  const TimeModel truth{.fixed_ms = 0.3, .ms_per_moe_expert = 0.01, .ms_per_moa_expert = 0};
  const auto no_moa = fit_time_model(timed(truth, {{64, 0}, {40, 0}, {20, 0}}));
  CHECK(no_moa.ms_per_moa_expert == 0.0);
  CHECK(no_moa.ms({30, 0}) == Approx(0.6).epsilon(1e-9));
  const auto together = fit_time_model(timed(truth, {{64, 16}, {32, 8}, {20, 5}}));
  CHECK(together.ms_per_moa_expert == 0.0);
  CHECK(together.ms({40, 10}) == Approx(0.7).epsilon(1e-9));
  CHECK(fit_time_model({{{8, 4}, 2.0}}).ms({8, 4}) == Approx(2.0).epsilon(1e-12));
  CHECK_THROWS(fit_time_model({}));
}

}  // namespace dsmoe
