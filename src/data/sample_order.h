#pragma once

#include <cstdint>

namespace dsmoe {

/// Origin of a sample of the endless training stream.
struct SamplePlace {
  int64_t epoch;  // 0, 1, ...
  int64_t index;  // of the sample in the data set, [0, n_samples)
};

/// Order of training samples: a pure function of (seed, epoch, position) without state, so that no
/// rank, thread, micro-batch or resume changes it. Each epoch holds every sample exactly once, in a
/// different order.
class SampleOrder {
 public:
  /// Throws Error if n_samples < 1.
  SampleOrder(int64_t n_samples, uint64_t seed);

  /// position counts samples since the start of training, from 0.
  SamplePlace at(int64_t position) const;

 private:
  uint64_t permute(uint64_t index, uint64_t epoch_seed) const;

  int64_t n_samples_;
  uint64_t seed_;
  int half_bits_;
};

}  // namespace dsmoe
