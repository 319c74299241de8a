#pragma once

#include <vector>

namespace dsmoe {

/// Experts per token, summed over layers.
struct ExpertCounts {
  double moe = 0;
  double moa = 0;
};

/// Measured time of a token with so many experts.
struct TimedExperts {
  ExpertCounts experts;
  double ms = 0;
};

/// Time of a token: a part that every plan pays, and one for each expert of either kind.
struct TimeModel {
  double fixed_ms = 0;
  double ms_per_moe_expert = 0;
  double ms_per_moa_expert = 0;

  double ms(const ExpertCounts& experts) const;
};

/// Fits by least squares of the relative errors. A kind of experts gets cost 0 if its count is
/// constant or a multiple of the other kind's. Throws c10::Error without a point.
TimeModel fit_time_model(const std::vector<TimedExperts>& points);

}  // namespace dsmoe
