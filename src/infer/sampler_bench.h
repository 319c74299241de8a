#pragma once

#include <cstdint>
#include <vector>

#include "infer/sampler.h"

namespace dsmoe {

/// Time of one draw, over the repetitions.
struct SamplerBenchResult {
  int64_t vocab_size = 0;
  double median_ms = 0;
  double least_ms = 0;
  double greatest_ms = 0;
};

/// Times Sampler::sample on normal logits of standard deviation 2.5, one result for each size.
std::vector<SamplerBenchResult> run_sampler_bench(const std::vector<int64_t>& vocab_sizes,
                                                  const SamplingConfig& config,
                                                  int64_t repetitions);

}  // namespace dsmoe
