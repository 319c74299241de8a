#include "train/flops.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "common/process_setup.h"

namespace dsmoe {

void measure_matrix_products(at::ScalarType dtype, at::Device device, const ProductObserver& see) {
  using Clock = std::chrono::steady_clock;
  const int64_t size = device.is_cuda() ? 8192 : 1024;
  const at::NoGradGuard no_grad;
  // A GPU multiplies constants faster than numbers.
  const auto a = at::arange(size * size, at::TensorOptions(at::kFloat).device(device))
                     .mul_(12.9898)
                     .sin_()
                     .to(dtype)
                     .view({size, size});
  // Reading an element needs a host sync.
  const auto multiply = [&] { return at::mm(a, a).view(-1)[0].item<float>(); };
  multiply();
  const auto end = Clock::now() + std::chrono::milliseconds(100);
  do {
    const double cpu = cpu_seconds();
    const auto start = Clock::now();
    multiply();
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    see(2.0 * std::pow(size, 3), seconds, cpu_seconds() - cpu);
  } while (Clock::now() < end);
}

double measure_matrix_speed(at::ScalarType dtype, at::Device device) {
  double best = 0;
  measure_matrix_products(dtype, device, [&](double flops, double seconds, double) {
    best = std::max(best, flops / seconds);
  });
  return best;
}

}  // namespace dsmoe
