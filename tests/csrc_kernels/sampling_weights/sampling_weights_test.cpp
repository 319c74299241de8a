#include <catch2/catch.hpp>
#include <cmath>
#include <limits>
#include <numbers>
#include <vector>

#include "common/random_seed.h"
#include "csrc_kernels/sampling_weights/kernels.h"

namespace dsmoe {
namespace {

// Checks each bucket and factor against the weight by the standard library.
void check_split(const SamplingWeightKernels& kernels,
                 const std::vector<float>& logits,
                 double greatest,
                 double temperature) {
  const size_t n = logits.size();
  std::vector<uint16_t> buckets(n, 0xffff);
  std::vector<double> factors(n);
  const double scale = kBucketsPerOctave / (std::numbers::ln2 * temperature);
  kernels.split(logits.data(), n, greatest, scale, buckets.data(), factors.data());
  bool all_close = true;
  for (size_t i = 0; i < n; ++i) {
    const double weight = std::exp((logits[i] - greatest) / temperature);
    if (buckets[i] + 1 == kWeightBuckets) {
      all_close = all_close && weight < 0x1p-63;
      continue;
    }
    const double split = factors[i] * std::exp2(-1.0 * buckets[i] / kBucketsPerOctave);
    all_close = all_close && std::abs(split / weight - 1) < 1e-12;
    all_close = all_close && std::abs(factors[i] - 1) < 0.01;
  }
  CHECK(all_close);
}

void check_kernels(const SamplingWeightKernels& kernels) {
  for (const size_t n : {1, 7, 1000}) {
    for (const double temperature : {0.05, 0.8, 1e6}) {
      std::vector<float> logits(n);
      for (size_t i = 0; i < n; ++i) {
        logits[i] = static_cast<float>(mix_bits(i) >> 40) * 0x1p-20F - 16;  // in [-16, 0)
      }
      logits[n / 2] = 0.0F;
      check_split(kernels, logits, 0.0, temperature);
      check_split(kernels, logits, 1.0 / 3, temperature);
      logits[n / 2] = -std::numeric_limits<float>::infinity();
      check_split(kernels, logits, 0.25, temperature);
    }
  }
}

}  // namespace

TEST_CASE("sampling_weights: bucket times factor is the weight, for every instruction set",
          "[csrc_kernels][sampling]") {
  check_kernels(isa_kernels<CpuIsa::kPortable, SamplingWeightKernels>());
  if (cpu_isa() >= CpuIsa::kAvx2) {
    check_kernels(isa_kernels<CpuIsa::kAvx2, SamplingWeightKernels>());
  }
  if (cpu_isa() >= CpuIsa::kAvx512) {
    check_kernels(isa_kernels<CpuIsa::kAvx512, SamplingWeightKernels>());
  }
}

}  // namespace dsmoe
