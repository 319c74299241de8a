#pragma once

#include <cstddef>
#include <cstdint>

#include "csrc_kernels/common/kernel_table.h"

namespace dsmoe {

/// Bucket b holds the sampling weights around 2^(-b / kBucketsPerOctave), relative to the greatest
/// one; the last bucket holds all below 2^-64.
constexpr int kBucketsPerOctave = 64;
constexpr size_t kWeightBuckets = 64 * kBucketsPerOctave;

/// Weights exp((logit - greatest) / temperature) of float logits, split by bucket. The logits are at
/// most `greatest`, or -inf.
struct SamplingWeightKernels {
  /// scale    kBucketsPerOctave / (ln 2 * temperature), finite
  /// buckets  [n]
  /// factors  [n], weight over that of its bucket: in [0.99, 1.01], relative error below 1e-12;
  ///          arbitrary in the last bucket
  void (*split)(const float* logits,
                size_t n,
                double greatest,
                double scale,
                uint16_t* buckets,
                double* factors);
};

}  // namespace dsmoe
