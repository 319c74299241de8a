// A router's bodies against its definition in float64, in every execution.
#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <vector>

#include "csrc_kernels/device/executions.h"
#include "csrc_kernels/router/backward_body.h"
#include "csrc_kernels/router/tile_body.h"

namespace dsmoe {
namespace {

struct RouterSizes {
  int64_t n_rows, n_experts, width;
};

size_t count(int64_t n, int64_t m) { return static_cast<size_t>(n * m); }

/// Inputs, and what the definition makes of them; N rows, E experts, K width.
struct Definition {
  RouterSizes s;
  bool gated, sigmoid;
  std::vector<double> x, weight, grad_logits, grad_probs;  // [N, K or 2 K], [E, K], [N, E] twice
  std::vector<double> features, slopes, logits, probs;     // [N, K], [N, K], [N, E], [N, E]

  void compute() {
    const auto n = count(s.n_rows, s.width);
    features.assign(n, 0);
    slopes.assign(n, 1);
    for (size_t i = 0; i < n; ++i) {
      if (!gated) {
        features[i] = x[i];
        continue;
      }
      const auto k = static_cast<size_t>(s.width);
      const double gate = x[i / k * 2 * k + i % k], up = x[i / k * 2 * k + k + i % k];
      const double sigma = 1 / (1 + std::exp(-gate));
      features[i] = gate * sigma * up;
      slopes[i] = sigma + gate * sigma * (1 - sigma);  // of silu
    }
    logits.assign(count(s.n_rows, s.n_experts), 0);
    probs = logits;
    for (int64_t row = 0; row < s.n_rows; ++row) {
      double sum = 0;
      for (int64_t e = 0; e < s.n_experts; ++e) {
        double& logit = logits[count(row, s.n_experts) + static_cast<size_t>(e)];
        for (int64_t k = 0; k < s.width; ++k) {
          logit += features[count(row, s.width) + static_cast<size_t>(k)] *
                   weight[count(e, s.width) + static_cast<size_t>(k)];
        }
        sum += std::exp(logit);
      }
      for (int64_t e = 0; e < s.n_experts; ++e) {
        const auto at = count(row, s.n_experts) + static_cast<size_t>(e);
        probs[at] = sigmoid ? 1 / (1 + std::exp(-logits[at])) : std::exp(logits[at]) / sum;
      }
    }
  }

  // [N, E]: of the logits, what comes through the probabilities included.
  std::vector<double> all_logit_gradients() const {
    auto grads = grad_logits;
    const auto n = static_cast<size_t>(s.n_experts);
    for (size_t at = 0; at < grads.size(); ++at) {
      double mean = 0;
      for (size_t i = at / n * n; i < (at / n + 1) * n; ++i) mean += probs[i] * grad_probs[i];
      grads[at] += sigmoid ? grad_probs[at] * probs[at] * (1 - probs[at])
                           : probs[at] * (grad_probs[at] - mean);
    }
    return grads;
  }
};

template <typename T>
struct Arrays {
  using W = device::Wide<T>;

  Arrays(const RouterSizes& s, bool gated, bool sigmoid)
      : d{.s = s,
          .gated = gated,
          .sigmoid = sigmoid,
          .x = {},
          .weight = {},
          .grad_logits = {},
          .grad_probs = {},
          .features = {},
          .slopes = {},
          .logits = {},
          .probs = {}} {
    x = stored<T>(test_numbers(count(s.n_rows, (gated ? 2 : 1) * s.width), 1));
    weight = stored<W>(test_numbers(count(s.n_experts, s.width), 2));
    grad_logits = stored<W>(test_numbers(count(s.n_rows, s.n_experts), 3));
    grad_probs = stored<W>(test_numbers(count(s.n_rows, s.n_experts), 4));
    d.x = widened(x);
    d.weight = widened(weight);
    d.grad_logits = widened(grad_logits);
    d.grad_probs = widened(grad_probs);
    d.compute();
    logits.assign(grad_logits.size(), W(-7));
    probs = logits;
  }

  RouterTable<T, W> table() {
    return {.n_rows = d.s.n_rows,
            .n_experts = d.s.n_experts,
            .width = d.s.width,
            .gated = d.gated,
            .sigmoid = d.sigmoid,
            .x = x.data(),
            .weight = weight.data(),
            .logits = logits.data(),
            .probs = probs.data()};
  }

  Definition d;
  std::vector<T> x;
  std::vector<W> weight, grad_logits, grad_probs, logits, probs;
};

template <typename A>
double worst(const std::vector<A>& got, const std::vector<double>& expected) {
  REQUIRE(got.size() == expected.size());
  double result = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const double difference = std::abs(static_cast<double>(device::load(got[i])) - expected[i]);
    result = difference <= result ? result : difference;  // a NaN stays
  }
  return result;
}

template <typename T>
void check_forward(Emulation emulation,
                   const RouterSizes& sizes,
                   bool gated,
                   bool sigmoid,
                   bool rows) {
  Arrays<T> a(sizes, gated, sigmoid);
  const auto table = a.table();
  if (rows) {
    run_emulated(emulation, device::router_row_shape(table), [&](auto& ctx) {
      device::router_row_body(ctx, table);
    });
  } else {
    run_emulated(emulation, device::router_tile_shape(table), [&](auto& ctx) {
      device::router_tile_body(ctx, table);
    });
  }
  const double tolerance = sizeof(typename Arrays<T>::W) == 4 ? 1e-5 : 1e-12;
  CHECK(worst(a.logits, a.d.logits) < tolerance);
  CHECK(worst(a.probs, a.d.probs) < tolerance);
}

template <typename T>
void check_backward(Emulation emulation, const RouterSizes& sizes, bool gated, bool sigmoid) {
  using W = typename Arrays<T>::W;
  Arrays<T> a(sizes, gated, sigmoid);
  a.probs = stored<W>(a.d.probs);
  const auto table = a.table();
  const int64_t n_chunks = router_device_chunks(sizes.n_rows, sizes.width);
  std::vector<T> grad_x(a.x.size());
  std::vector<W> partial(count(n_chunks * sizes.n_experts, sizes.width), W(-7));
  const RouterGradients<T, W> gradients{.grad_logits = a.grad_logits.data(),
                                        .grad_probs = a.grad_probs.data(),
                                        .grad_x = grad_x.data(),
                                        .partial_weight = partial.data()};
  run_emulated(emulation, device::router_backward_shape(table), [&](auto& ctx) {
    device::router_backward_body(ctx, table, gradients);
  });
  const auto grads = a.d.all_logit_gradients();
  std::vector<double> of_x(a.x.size()), of_weight(a.weight.size()), sums(a.weight.size());
  for (int64_t row = 0; row < sizes.n_rows; ++row) {
    for (int64_t k = 0; k < sizes.width; ++k) {
      const auto at = count(row, sizes.width) + static_cast<size_t>(k);
      double grad = 0;
      for (int64_t e = 0; e < sizes.n_experts; ++e) {
        const double g = grads[count(row, sizes.n_experts) + static_cast<size_t>(e)];
        const auto w = count(e, sizes.width) + static_cast<size_t>(k);
        grad += g * a.d.weight[w];
        of_weight[w] += g * a.d.features[at];
      }
      const auto to = count(row, gated ? 2 * sizes.width : sizes.width) + static_cast<size_t>(k);
      const auto up = to + static_cast<size_t>(sizes.width);
      of_x[to] = gated ? grad * a.d.x[up] * a.d.slopes[at] : grad;
      if (!gated) continue;
      of_x[up] = grad * a.d.x[to] / (1 + std::exp(-a.d.x[to]));
    }
  }
  for (size_t i = 0; i < partial.size(); ++i) {
    sums[i % sums.size()] += static_cast<double>(partial[i]);
  }
  CHECK(worst(grad_x, of_x) < kTolerance<T> * 3);
  CHECK(worst(sums, of_weight) < (sizeof(W) == 4 ? 2e-5 : 1e-12) * 3);
}

// No rows; single numbers; whole packs and not; two tiles of columns, of rows and of experts.
constexpr RouterSizes kRouterSizes[] =
    {{0, 3, 8}, {1, 1, 1}, {2, 5, 9}, {3, 40, 72}, {33, 66, 130}, {65, 33, 68}};
// Lanes that are threads are slow: one block or two.
constexpr RouterSizes kThreadSizes[] = {{1, 9, 70}, {33, 3, 68}};
// More rows than a chunk; experts whose sums do not lie in shared memory, and the most.
constexpr RouterSizes kBackwardSizes[] =
    {{0, 3, 8}, {1, 1, 1}, {5, 2, 64}, {150, 33, 70}, {40, 160, 65}, {3, kMostRouterExperts, 3}};
constexpr RouterSizes kBackwardThreadSizes[] = {{0, 3, 8}, {70, 3, 65}, {3, 200, 2}};

template <size_t kWhole, size_t kSlow, typename F>
void for_cases(const RouterSizes (&whole)[kWhole], const RouterSizes (&slow)[kSlow], F f) {
  for (const auto emulation : emulations()) {
    const bool threads = emulation == Emulation::kThreads;
    const std::vector<RouterSizes> sizes = threads
                                               ? std::vector<RouterSizes>(slow, slow + kSlow)
                                               : std::vector<RouterSizes>(whole, whole + kWhole);
    for (const auto& s : sizes) {
      for (const int form : {0, 1, 2}) {
        if (threads && form != 1) continue;
        CAPTURE(static_cast<int>(emulation), s.n_rows, s.n_experts, s.width, form);
        f(emulation, s, /*gated=*/form > 0, /*sigmoid=*/form == 2, threads);
      }
    }
  }
}

}  // namespace

TEST_CASE("router: the device's bodies give logits and probabilities", "[device]") {
  for_cases(
      kRouterSizes, kThreadSizes, [](auto emulation, auto s, bool gated, bool sigmoid, bool slow) {
        for (const bool rows : {true, false}) {
          CAPTURE(rows);
          check_forward<float>(emulation, s, gated, sigmoid, rows);
          if (slow) continue;  // their business is the order
          check_forward<double>(emulation, s, gated, sigmoid, rows);
          check_forward<Bfloat16>(emulation, s, gated, sigmoid, rows);
        }
      });
}

TEST_CASE("router: the device's body gives gradients", "[device]") {
  for_cases(kBackwardSizes,
            kBackwardThreadSizes,
            [](auto emulation, auto s, bool gated, bool sigmoid, bool slow) {
              check_backward<float>(emulation, s, gated, sigmoid);
              if (slow) return;
              check_backward<double>(emulation, s, gated, sigmoid);
              check_backward<Bfloat16>(emulation, s, gated, sigmoid);
            });
}

TEST_CASE("router: large logits keep their softmax", "[device]") {
  for (const bool rows : {true, false}) {
    Arrays<float> a({2, 6, 1}, false, false);
    a.x = {1000.0F, -1000.0F};
    a.weight = {1, 2, 3, 4, 5, 5};
    const auto table = a.table();
    const auto shape = rows ? device::router_row_shape(table) : device::router_tile_shape(table);
    run_emulated(Emulation::kSequential, shape, [&](auto& ctx) {
      rows ? device::router_row_body(ctx, table) : device::router_tile_body(ctx, table);
    });
    CHECK(a.probs == std::vector<float>{0, 0, 0, 0, 0.5F, 0.5F, 1, 0, 0, 0, 0, 0});
  }
}

TEST_CASE("router: chunks follow rows and width; launches keep 64-bit sizes", "[device]") {
  CHECK(router_device_chunks(0, 256) == 1);
  CHECK(router_device_chunks(65, 256) == 2);
  CHECK(router_device_chunks(8192, 256) == 64);
  CHECK(router_device_chunks(8192, 4096) == 4);
  CHECK(router_device_chunks(8192, 1 << 20) == 1);
  const RouterTable<float, float> table{.n_rows = int64_t{1} << 34,
                                        .n_experts = 32,
                                        .width = 4096,
                                        .gated = true,
                                        .sigmoid = false,
                                        .x = nullptr,
                                        .weight = nullptr,
                                        .logits = nullptr,
                                        .probs = nullptr};
  CHECK_FALSE(device::routes_row_by_row(table));
  CHECK(device::router_tile_shape(table).n_blocks == int64_t{1} << 29);
  CHECK(device::router_backward_shape(table).n_blocks == 256);
  for (int64_t n = 1; n <= kMostRouterExperts; ++n) {
    auto some = table;
    some.n_experts = n;
    CHECK_NOTHROW(emulated::check_launch(device::router_backward_shape(some)));
    const RouterTable<double, double> wide{.n_rows = 64,
                                           .n_experts = n,
                                           .width = 64,
                                           .gated = false,
                                           .sigmoid = false,
                                           .x = nullptr,
                                           .weight = nullptr,
                                           .logits = nullptr,
                                           .probs = nullptr};
    CHECK_NOTHROW(emulated::check_launch(device::router_backward_shape(wide)));
    CHECK_NOTHROW(emulated::check_launch(device::router_tile_shape(wide)));
  }
}

}  // namespace dsmoe
