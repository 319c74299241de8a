#include "train/flops.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>

#include <algorithm>
#include <chrono>

namespace dsmoe {

double measure_matrix_speed(at::ScalarType dtype) {
  using Clock = std::chrono::steady_clock;
  constexpr int64_t kSize = 1024;
  const at::NoGradGuard no_grad;
  const auto a = at::ones({kSize, kSize}, dtype);
  at::mm(a, a);
  double best = 0;
  const auto end = Clock::now() + std::chrono::milliseconds(100);
  do {
    const auto start = Clock::now();
    at::mm(a, a);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::max(best, 2.0 * kSize * kSize * kSize / seconds);
  } while (Clock::now() < end);
  return best;
}

}  // namespace dsmoe
