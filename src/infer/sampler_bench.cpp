#include "infer/sampler_bench.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/randn.h>

#include <algorithm>
#include <chrono>

namespace dsmoe {

std::vector<SamplerBenchResult> run_sampler_bench(const std::vector<int64_t>& vocab_sizes,
                                                  const SamplingConfig& config,
                                                  int64_t repetitions) {
  using Clock = std::chrono::steady_clock;
  constexpr int64_t kWarmup = 3;
  std::vector<SamplerBenchResult> results;
  for (const int64_t n : vocab_sizes) {
    const auto logits = 2.5 * at::randn({n}, at::detail::createCPUGenerator(1), at::kFloat);
    const auto* begin = logits.const_data_ptr<float>();
    Sampler sampler(config, 0);
    std::vector<double> times;
    for (int64_t i = -kWarmup; i < repetitions; ++i) {
      const auto start = Clock::now();
      sampler.sample({begin, static_cast<size_t>(n)}, {});
      const std::chrono::duration<double, std::milli> time = Clock::now() - start;
      if (i >= 0) times.push_back(time.count());
    }
    std::sort(times.begin(), times.end());
    results.push_back({n, times[times.size() / 2], times.front(), times.back()});
  }
  return results;
}

}  // namespace dsmoe
