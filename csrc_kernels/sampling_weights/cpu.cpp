#include "csrc_kernels/sampling_weights/kernels.h"

namespace dsmoe {
namespace {

void split(const float* logits,
           size_t n,
           double greatest,
           double scale,
           uint16_t* buckets,
           double* factors) {
  constexpr double kLast = kWeightBuckets - 1;
  constexpr double kRounding = 0x1.8p52;  // adding it leaves no bits behind the point
  constexpr double kNats = 0.693147180559945309417 / kBucketsPerOctave;
#pragma omp simd
  for (size_t i = 0; i < n; ++i) {
    const double exact = (greatest - static_cast<double>(logits[i])) * scale;
    const double place = exact < kLast ? exact : kLast;
    const double nearest = (place + kRounding) - kRounding;
    // exp(x) within 4e-14: |x| is at most 0.0055.
    const double x = (nearest - place) * kNats;
    factors[i] = (((x * (1.0 / 24) + 1.0 / 6) * x + 0.5) * x + 1.0) * x + 1.0;
    buckets[i] = static_cast<uint16_t>(static_cast<int32_t>(nearest));
  }
}

}  // namespace

template <>
SamplingWeightKernels isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {split};
}

}  // namespace dsmoe
