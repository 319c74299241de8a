#pragma once

#include <cstdint>
#include <span>

#include "infer/adjusted_logits.h"

namespace dsmoe {

/// Filters and temperature of a draw.
struct SamplingConfig {
  double temperature = 0.0;  ///< 0: greedy
  int64_t top_k = 0;         ///< keep the k most probable; 0: all
  double top_p = 1.0;        ///< keep the fewest that reach probability p together; 1: all
  double min_p = 0.0;        ///< drop below min_p * the greatest probability; 0: none
  double repetition_penalty =
      1.0;  ///< divides positive logits of ids seen, multiplies negative; 1: off
  uint64_t seed = 0;

  /// Throws Error naming the option that is out of range.
  void validate() const;
};

/// Draws the tokens of one sequence. The n-th draw depends on (seed, sequence, n) and the logits
/// only, so batching changes nothing.
class Sampler {
 public:
  Sampler(const SamplingConfig& config, int64_t sequence, ExcludedIds excluded = nullptr);

  /// logits [vocab_size] finite; seen: prompt and generated ids. Order of the filters: excluded
  /// ids, repetition penalty, temperature, top_k, top_p, min_p. Greedy takes the lowest id
  /// among equals. Throws RunError if a logit is not finite, or if no id may be drawn.
  int32_t sample(std::span<const float> logits, std::span<const int32_t> seen);

 private:
  SamplingConfig config_;
  uint64_t sequence_seed_;
  ExcludedIds excluded_;  // null: none
  uint64_t n_draws_ = 0;
};

}  // namespace dsmoe
