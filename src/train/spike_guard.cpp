#include "train/spike_guard.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/error.h"

namespace dsmoe {
namespace {

std::optional<std::string> judge_one(const char* name,
                                     double value,
                                     const std::vector<double>& window,
                                     const GuardConfig& config) {
  if (!std::isfinite(value)) return fmt::format("{} is {}", name, value);
  if (config.spike_z <= 0 || static_cast<int64_t>(window.size()) < config.spike_window) return {};
  const auto n = static_cast<double>(window.size());
  const double mean = std::accumulate(window.begin(), window.end(), 0.0) / n;
  double squares = 0;
  for (const double past : window) squares += (past - mean) * (past - mean);
  // A window of equal values has a deviation of 0.
  const double deviation = std::max(std::sqrt(squares / n), 1e-6 * std::abs(mean));
  // Written so that a NaN, wherever it comes from, is a spike.
  if (value <= mean + config.spike_z * deviation) return {};
  return fmt::format("{} {:.4g} is {:.1f} standard deviations above the mean {:.4g} of {} steps",
                     name,
                     value,
                     (value - mean) / deviation,
                     mean,
                     window.size());
}

void push(std::vector<double>& window, double value, int64_t length) {
  window.push_back(value);
  const auto excess = static_cast<int64_t>(window.size()) - length;
  if (excess > 0) window.erase(window.begin(), window.begin() + excess);
}

}  // namespace

std::optional<std::string> SpikeGuard::judge(double loss, double gradient_norm) const {
  if (auto reason = judge_one("loss", loss, history_.losses, config_)) return reason;
  return judge_one("gradient norm", gradient_norm, history_.gradient_norms, config_);
}

void SpikeGuard::remember(double loss, double gradient_norm) {
  push(history_.losses, loss, config_.spike_window);
  push(history_.gradient_norms, gradient_norm, config_.spike_window);
}

void SpikeGuard::accept(double loss, double gradient_norm) {
  remember(loss, gradient_norm);
  history_.skipped_in_a_row = 0;
}

void SpikeGuard::skip(double loss, double gradient_norm) {
  if (std::isfinite(loss) && std::isfinite(gradient_norm)) remember(loss, gradient_norm);
  ++history_.skipped_steps;
  ++history_.skipped_in_a_row;
}

void SpikeGuard::check_skips() const {
  if (history_.skipped_in_a_row < config_.max_skips) return;
  throw RunError(
      fmt::format("{} steps in a row were skipped, {} in all; train.guard.max_skips = {}",
                  history_.skipped_in_a_row,
                  history_.skipped_steps,
                  config_.max_skips));
}

}  // namespace dsmoe
