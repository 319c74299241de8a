#include "csrc_kernels/rotary/rotary.h"

#include <ATen/ops/tensor.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "csrc_kernels/random_tensors.h"

namespace dsmoe {

TEST_CASE("rotary: rotates a pair by a right angle", "[csrc_kernels][attention]") {
  const auto x = at::tensor({1.0, 2.0, 3.0, 4.0}, at::kDouble).view({1, 1, 4});
  const auto cos = at::tensor({0.0, 1.0}, at::kDouble).view({1, 2});
  const auto sin = at::tensor({1.0, 0.0}, at::kDouble).view({1, 2});
  // (1, 3) becomes (-3, 1); (2, 4) stays.
  const auto expected = at::tensor({-3.0, 2.0, 1.0, 4.0}, at::kDouble).view({1, 1, 4});
  CHECK(max_difference(rotary(x, cos, sin), expected) == 0.0);
}

TEST_CASE("rotary: value and gradient equal the reference and finite differences",
          "[csrc_kernels][attention]") {
  RandomTensors random(41);
  for (const int64_t n_table_rows : {2, 6}) {
    const auto ours = random.leaf({6, 3, 10});
    const auto theirs = leaf_copy(ours);
    const auto angles = random.normal({n_table_rows, 5});
    const auto seed = random.normal({6, 3, 10});
    const auto run = [&](const at::Tensor& x) { return rotary(x, angles.cos(), angles.sin()); };
    const auto reference = rotary_ref(theirs, angles.cos(), angles.sin());
    CHECK(max_difference(run(ours), reference) < 1e-14);
    (run(ours) * seed).sum().backward();
    (reference * seed).sum().backward();
    CHECK(max_difference(ours.grad(), theirs.grad()) < 1e-14);
    const auto x = ours.detach();
    const auto loss = [&] { return (run(x) * seed).sum().item<double>(); };
    CHECK(max_difference(ours.grad(), numeric_gradient(loss, x)) < 1e-8);
  }
}

TEST_CASE("rotary: float32 and bfloat16 stay within their tolerance", "[csrc_kernels][attention]") {
  RandomTensors random(42);
  const auto x = random.normal({8, 2, 24});
  const auto angles = random.normal({4, 12}) * 10.0;
  const auto expected = rotary_ref(x, angles.cos(), angles.sin());
  const auto cos = angles.cos().to(at::kFloat);
  const auto sin = angles.sin().to(at::kFloat);
  CHECK(max_difference(rotary(x.to(at::kFloat), cos, sin).to(at::kDouble), expected) < 1e-5);
  CHECK(max_difference(rotary(x.to(at::kBFloat16), cos, sin).to(at::kDouble), expected) < 4e-2);
}

TEST_CASE("rotary: wrong shapes and types throw", "[csrc_kernels][attention]") {
  RandomTensors random(43);
  const auto x = random.normal({6, 2, 4});
  const auto table = random.normal({6, 2});
  CHECK_THROWS_AS(rotary(random.normal({6, 2, 3}), table, table), c10::Error);
  CHECK_THROWS_AS(rotary(x, random.normal({4, 2}), random.normal({4, 2})), c10::Error);
  CHECK_THROWS_AS(rotary(x, table, random.normal({3, 2})), c10::Error);
  CHECK_THROWS_AS(rotary(x, random.normal({6, 2}, at::kFloat), table), c10::Error);
}

}  // namespace dsmoe
