#include "train/lr_schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>

#include "common/error.h"

namespace dsmoe {
namespace {

// Share of the way from `begin` to `end`, in [0, 1].
double progress(int64_t step, int64_t begin, int64_t end) {
  if (end <= begin) return step < begin ? 0.0 : 1.0;
  return std::clamp(static_cast<double>(step - begin) / static_cast<double>(end - begin), 0.0, 1.0);
}

// Height between the final value (0) and the peak (1).
double height(const ScheduleConfig& config, int64_t step) {
  switch (config.kind) {
    case ScheduleKind::kConstant:
      return 1.0;
    case ScheduleKind::kCosine: {
      const auto done = progress(step, config.warmup_steps, config.total_steps);
      return 0.5 * (1.0 + std::cos(std::numbers::pi * done));
    }
    case ScheduleKind::kWsd: {
      if (config.decay_steps == 0) return 1.0;
      const auto done = progress(step, config.total_steps - config.decay_steps, config.total_steps);
      return config.decay_shape == DecayShape::kLinear ? 1.0 - done : 1.0 - std::sqrt(done);
    }
  }
  throw Error("learning_rate: unknown schedule kind");
}

}  // namespace

double learning_rate(const ScheduleConfig& config, int64_t step) {
  if (step < 0) {
    throw Error("learning_rate: expected a step from 0, got " + std::to_string(step));
  }
  if (step < config.warmup_steps) {
    return config.peak * static_cast<double>(step + 1) / static_cast<double>(config.warmup_steps);
  }
  const auto floor = config.final_ratio;
  return config.peak * (floor + (1.0 - floor) * height(config, step));
}

}  // namespace dsmoe
