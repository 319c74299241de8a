#pragma once

#include <cstdint>

#include "infer/sampler.h"

namespace dsmoe {

/// `bench --sampler`: the time of one draw at two sizes of the vocabulary.
struct SamplerBenchCommand {
  SamplingConfig sampling{.temperature = 0.8, .top_p = 0.95};
  int64_t repetitions = 100;
  int threads = 0;
  bool json = false;
};

/// Measures and prints; returns the exit status.
int bench_sampler(const SamplerBenchCommand& command);

}  // namespace dsmoe
