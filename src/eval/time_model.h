#pragma once

#include <vector>

namespace dsmoe {

/// Experts per token, summed over layers.
struct ExpertCounts {
  double moe = 0;
  double moa = 0;
};

/// What a token took with so many experts.
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

/// The model whose relative errors have the least sum of squares. A kind whose count does not vary,
/// or only as the other kind's does, gets no cost of its own. Throws c10::Error without a point.
TimeModel fit_time_model(const std::vector<TimedExperts>& points);

}  // namespace dsmoe
