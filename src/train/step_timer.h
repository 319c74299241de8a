#pragma once

#include <array>
#include <chrono>
#include <cstddef>

namespace dsmoe {

enum class StepPart { kData, kForward, kLoss, kBackward, kOptimizer, kOther };
constexpr size_t kStepParts = 6;
constexpr std::array<const char*, kStepParts> kStepPartNames{"data",
                                                             "forward",
                                                             "loss",
                                                             "backward",
                                                             "optimizer",
                                                             "other"};

/// Wall seconds of one step by part.
struct StepTimes {
  std::array<double, kStepParts> parts{};
  double cpu = 0;  ///< processor seconds of all threads; 0 where they were not asked for
  double total() const {
    double sum = 0;
    for (const double part : parts) sum += part;
    return sum;
  }
};

/// Divides a step's wall time among its parts, without a gap: every lap credits the time since the
/// one before. One reading of the clock a lap; CPU work is over when a call returns.
class StepTimer {
 public:
  void start() {
    times_ = {};
    last_ = Clock::now();
  }
  void lap(StepPart part) {
    const auto now = Clock::now();
    times_.parts[static_cast<size_t>(part)] += std::chrono::duration<double>(now - last_).count();
    last_ = now;
  }
  const StepTimes& times() const { return times_; }

 private:
  using Clock = std::chrono::steady_clock;
  Clock::time_point last_ = Clock::now();
  StepTimes times_;
};

}  // namespace dsmoe
