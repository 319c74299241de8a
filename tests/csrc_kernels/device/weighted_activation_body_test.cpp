#include "csrc_kernels/weighted_activation/body.h"

#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "csrc_kernels/device/executions.h"

namespace dsmoe {
namespace {

struct Sizes {
  int64_t n_rows, n_experts, width;
};

// No rows, one expert, widths with and without whole packs, more pairs than a block has warps.
constexpr Sizes kSizes[] = {{0, 3, 8}, {1, 1, 1}, {3, 1, 7}, {2, 5, 40}, {4, 3, 264}};

// silu(gate) * up and its slopes in float64, by the definition.
double silu_of(double x) { return x / (1 + std::exp(-x)); }
double silu_slope(double x) {
  const double s = 1 / (1 + std::exp(-x));
  return s + x * s * (1 - s);
}

template <typename T>
void check_swiglu(Emulation emulation, const Sizes& sizes) {
  using W = device::Wide<T>;
  const auto n_pairs = static_cast<size_t>(sizes.n_rows * sizes.n_experts);
  const size_t n = n_pairs * static_cast<size_t>(sizes.width);
  const auto up = stored<T>(test_numbers(n, 1));
  const auto gate = stored<T>(test_numbers(n, 2));
  const auto grad = stored<T>(test_numbers(n, 3));
  const auto weights = stored<W>(test_numbers(n_pairs, 4));
  std::vector<T> hidden(n), again(n), grad_up(n), grad_gate(n);
  std::vector<W> grad_weights(n_pairs);
  WeightedActivationRows<T, W> rows{.n_rows = sizes.n_rows,
                                    .n_experts = sizes.n_experts,
                                    .width = sizes.width,
                                    .up = up.data(),
                                    .gate = gate.data(),
                                    .weights = weights.data(),
                                    .hidden = hidden.data()};
  const auto shape = device::weighted_activation_shape(rows);
  run_emulated(emulation, shape, [&](auto& ctx) {
    device::weighted_activation_body<Activation::kSwiglu>(ctx, rows);
  });
  rows.hidden = again.data();
  const WeightedActivationGradients<T, W> gradients{.grad_hidden = grad.data(),
                                                    .grad_up = grad_up.data(),
                                                    .grad_gate = grad_gate.data(),
                                                    .grad_weights = grad_weights.data()};
  run_emulated(emulation, shape, [&](auto& ctx) {
    device::weighted_activation_backward_body<Activation::kSwiglu>(ctx, rows, gradients);
  });
  const double tolerance = kTolerance<T>;
  const auto close = [&](const std::vector<T>& got, size_t i, double expected) {
    return std::abs(static_cast<double>(device::load(got[i])) - expected) <= tolerance;
  };
  bool all = true;
  for (size_t pair = 0; pair < n_pairs; ++pair) {
    const double w = static_cast<double>(weights[pair]);
    double sum = 0;
    for (size_t i = pair * static_cast<size_t>(sizes.width);
         i < (pair + 1) * static_cast<size_t>(sizes.width);
         ++i) {
      const auto u = static_cast<double>(device::load(up[i]));
      const auto a = static_cast<double>(device::load(gate[i]));
      const auto g = static_cast<double>(device::load(grad[i]));
      all = all && close(hidden, i, w * silu_of(a) * u) && close(again, i, w * silu_of(a) * u) &&
            close(grad_up, i, g * w * silu_of(a)) && close(grad_gate, i, g * w * u * silu_slope(a));
      sum += g * silu_of(a) * u;
    }
    all = all && std::abs(static_cast<double>(grad_weights[pair]) - sum) <= 10 * tolerance;
  }
  CHECK(all);
}

}  // namespace

TEST_CASE("weighted_activation: the device's body gives swiglu and its gradients", "[device]") {
  for (const auto emulation : emulations()) {
    for (const auto& sizes : kSizes) {
      CAPTURE(static_cast<int>(emulation), sizes.n_rows, sizes.n_experts, sizes.width);
      check_swiglu<float>(emulation, sizes);
      if (emulation == Emulation::kThreads) continue;  // slow, and its business is the order
      check_swiglu<double>(emulation, sizes);
      check_swiglu<Bfloat16>(emulation, sizes);
    }
  }
}

TEST_CASE("weighted_activation: launches of large rows keep 64-bit indices", "[device]") {
  constexpr int64_t kRows = int64_t{1} << 24;
  constexpr int64_t kExperts = 64;  // 2^30 pairs of 2^10 elements
  const WeightedActivationRows<float, float> rows{.n_rows = kRows,
                                                  .n_experts = kExperts,
                                                  .width = 1024,
                                                  .up = nullptr,
                                                  .gate = nullptr,
                                                  .weights = nullptr,
                                                  .hidden = nullptr};
  CHECK(device::weighted_activation_shape(rows).n_blocks == kRows * kExperts / 8);
}

}  // namespace dsmoe
