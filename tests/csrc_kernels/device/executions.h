#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "support/emulated_device.h"

namespace dsmoe {

/// A way to run a device kernel's body on the CPU.
enum class Emulation { kSequential, kShuffled, kThreads };

/// All of them; under ThreadSanitizer (program test_device_kernels_tsan) only that with threads.
inline std::vector<Emulation> emulations() {
#ifdef DSMOE_THREADS_ONLY
  return {Emulation::kThreads};
#else
  return {Emulation::kSequential, Emulation::kShuffled, Emulation::kThreads};
#endif
}

template <typename Body>
void run_emulated(Emulation emulation, const LaunchShape& shape, Body body) {
  switch (emulation) {
    case Emulation::kSequential:
      return emulated::run_sequential(shape, body);
    case Emulation::kShuffled:
      return emulated::run_shuffled(shape, /*seed=*/7, body);
    case Emulation::kThreads:
      return emulated::run_threads(shape, body);
  }
}

/// Numbers in -1 .. 1 that depend on the seed only.
inline std::vector<double> test_numbers(size_t n, uint64_t seed) {
  std::mt19937_64 engine(seed);
  std::uniform_real_distribution<double> uniform(-1.0, 1.0);
  std::vector<double> numbers(n);
  for (auto& x : numbers) x = uniform(engine);
  return numbers;
}

/// The numbers in a stored type.
template <typename T>
std::vector<T> stored(const std::vector<double>& numbers) {
  std::vector<T> result(numbers.size());
  for (size_t i = 0; i < numbers.size(); ++i) {
    device::store(result[i], static_cast<device::Wide<T>>(numbers[i]));
  }
  return result;
}

/// Stored numbers as they are computed with.
template <typename T>
std::vector<double> widened(const std::vector<T>& numbers) {
  std::vector<double> result;
  for (const auto& x : numbers) result.push_back(static_cast<double>(device::load(x)));
  return result;
}

/// What sums of values of about 1 may be off by.
template <typename T>
constexpr double kTolerance = sizeof(T) == 2   ? 2e-2
                              : sizeof(T) == 4 ? 1e-5
                                               : 1e-12;

}  // namespace dsmoe
