#include "model/attention/rotary_embedding.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/stack.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <numbers>

#include "csrc_kernels/random_tensors.h"

namespace dsmoe {

TEST_CASE("rotary_frequencies: llama3 scaling keeps, blends and divides by wavelength",
          "[model][rotary]") {
  // The values of Llama 3.2 1B.
  const RopeScalingConfig scaling{.kind = RopeScalingKind::kLlama3,
                                  .factor = 32.0,
                                  .low_freq_factor = 1.0,
                                  .high_freq_factor = 4.0,
                                  .original_max_seq_len = 8192};
  const auto scaled = rotary_frequencies(64, 500000.0, scaling);
  const auto plain = rotary_frequencies(64, 500000.0);
  int n_kept = 0;
  int n_blended = 0;
  int n_divided = 0;
  for (int64_t i = 0; i < 32; ++i) {
    const double f = std::pow(500000.0, -2.0 * static_cast<double>(i) / 64.0);
    CHECK(plain[i].item<double>() == Approx(f).epsilon(1e-13));
    const double wavelength = 2.0 * std::numbers::pi / f;
    double expected = 0;
    if (wavelength < 8192.0 / 4.0) {
      expected = f;
      ++n_kept;
    } else if (wavelength > 8192.0) {
      expected = f / 32.0;
      ++n_divided;
    } else {
      const double t = (8192.0 / wavelength - 1.0) / 3.0;
      expected = (1.0 - t) * f / 32.0 + t * f;
      ++n_blended;
    }
    CHECK(scaled[i].item<double>() == Approx(expected).epsilon(1e-12));
  }
  CHECK(n_kept > 0);
  CHECK(n_blended > 0);
  CHECK(n_divided > 0);
}

TEST_CASE("apply_rotary: rotating halves equals rotating neighbours of permuted rows",
          "[model][rotary]") {
  constexpr int64_t kHead = 6;
  const auto positions = at::arange(5, at::kLong).unsqueeze(0);  // [1, 5]
  const auto tables = rotary_tables(positions, rotary_frequencies(kHead, 10000.0), at::kDouble);
  const auto x = RandomTensors(1).normal({1, 5, kHead});  // pairs (2i, 2i + 1)
  const auto pairs = x.view({1, 5, kHead / 2, 2});
  const auto a = pairs.select(-1, 0);
  const auto b = pairs.select(-1, 1);
  const auto first = a * tables.cos - b * tables.sin;
  const auto second = b * tables.cos + a * tables.sin;
  const auto halves = pairs.transpose(-1, -2).reshape(x.sizes());  // evens, then odds
  const auto rotated = apply_rotary(halves.unsqueeze(2), tables).squeeze(2);
  const auto expected = at::stack({first, second}, -2).reshape(x.sizes());
  CHECK(max_difference(rotated, expected) < 1e-12);
  // Position 1 rotates the first pair by one radian.
  CHECK(first[0][1][0].item<double>() == Approx(x[0][1][0].item<double>() * std::cos(1.0) -
                                                x[0][1][1].item<double>() * std::sin(1.0))
                                             .epsilon(1e-12));
}

}  // namespace dsmoe
