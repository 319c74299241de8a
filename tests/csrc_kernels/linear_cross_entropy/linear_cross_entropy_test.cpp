#include "csrc_kernels/linear_cross_entropy/linear_cross_entropy.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/tensor.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "csrc_kernels/random_tensors.h"

namespace dsmoe {
namespace {

at::Tensor some_targets(int64_t n, int64_t vocab_size) {
  return at::arange(n).mul(7).remainder(vocab_size);
}

}  // namespace

TEST_CASE("linear_cross_entropy: a worked value", "[csrc_kernels][loss]") {
  // Logits (1, 0, 0) and target 0: log(e + 2) - 1.
  const auto features = at::tensor({1.0, 0.0, 0.0}, at::kDouble).view({1, 3});
  const auto head = at::eye(3, at::kDouble);
  const auto loss = linear_cross_entropy(features, head, head, at::tensor({0}, at::kLong));
  CHECK(loss.item<double>() == Approx(std::log(std::exp(1.0) + 2.0) - 1.0).epsilon(1e-14));
}

TEST_CASE("linear_cross_entropy: value and gradients equal the reference and finite differences",
          "[csrc_kernels][loss]") {
  RandomTensors random(51);
  const auto features = random.leaf({11, 6});
  const auto head = random.leaf({9, 6});
  const auto targets = some_targets(11, 9);
  const auto features_ref = leaf_copy(features);
  const auto head_ref = leaf_copy(head);
  const auto loss = linear_cross_entropy(features, head, head, targets);
  const auto reference = linear_cross_entropy_ref(features_ref, head_ref, targets);
  CHECK(max_difference(loss, reference) < 1e-13);
  (loss * 0.25).backward();
  (reference * 0.25).backward();
  CHECK(max_difference(features.grad(), features_ref.grad()) < 1e-13);
  CHECK(max_difference(head.grad(), head_ref.grad()) < 1e-13);
  const at::NoGradGuard no_grad;
  const auto value = [&] {
    return 0.25 * linear_cross_entropy(features, head, head, targets).item<double>();
  };
  CHECK(max_difference(features.grad(), numeric_gradient(value, features)) < 1e-8);
  CHECK(max_difference(head.grad(), numeric_gradient(value, head)) < 1e-8);
}

TEST_CASE("linear_cross_entropy: chunks add up to the whole", "[csrc_kernels][loss]") {
  // Above 4 Mi logits the rows come in chunks: 700 rows of 20,000 in three.
  RandomTensors random(52);
  const auto features = random.normal({700, 4}, at::kFloat).requires_grad_(true);
  const auto head = random.normal({20000, 4}, at::kFloat).requires_grad_(true);
  const auto features_ref = leaf_copy(features);
  const auto head_ref = leaf_copy(head);
  const auto targets = some_targets(700, 20000);
  const auto loss = linear_cross_entropy(features, head, head, targets);
  const auto reference = linear_cross_entropy_ref(features_ref, head_ref, targets);
  CHECK(max_difference(loss, reference) < 1e-5 * 10);  // of a loss near 10
  loss.backward();
  reference.backward();
  CHECK(max_difference(features.grad() * 700, features_ref.grad() * 700) < 1e-4);
  CHECK(max_difference(head.grad() * 700, head_ref.grad() * 700) < 1e-4);
}

TEST_CASE("linear_cross_entropy: a bfloat16 copy gives the weight a float32 gradient",
          "[csrc_kernels][loss]") {
  RandomTensors random(53);
  const auto features = random.normal({300, 32}, at::kBFloat16).requires_grad_(true);
  const auto head = random.normal({50, 32}, at::kFloat).requires_grad_(true);
  const auto exact_features = leaf_copy(features.to(at::kDouble));
  const auto exact_head = leaf_copy(head.to(at::kBFloat16).to(at::kDouble));
  const auto targets = some_targets(300, 50);
  const auto loss = linear_cross_entropy(features, head, head.to(at::kBFloat16), targets);
  const auto exact = linear_cross_entropy_ref(exact_features, exact_head, targets);
  CHECK(loss.scalar_type() == at::kFloat);
  CHECK(std::abs(loss.item<double>() - exact.item<double>()) < 2e-2);
  loss.backward();
  exact.backward();
  CHECK(head.grad().scalar_type() == at::kFloat);
  const double scale = exact_head.grad().abs().max().item<double>();
  CHECK(max_difference(head.grad().to(at::kDouble), exact_head.grad()) < 2e-2 * scale);
}

TEST_CASE("linear_cross_entropy: wrong shapes and targets throw", "[csrc_kernels][loss]") {
  RandomTensors random(54);
  const auto features = random.normal({3, 4});
  const auto head = random.normal({5, 4});
  const auto targets = some_targets(3, 5);
  CHECK_THROWS_AS(linear_cross_entropy(features, random.normal({5, 3}), head, targets), c10::Error);
  CHECK_THROWS_AS(linear_cross_entropy(features, head, head.to(at::kFloat), targets), c10::Error);
  CHECK_THROWS_AS(linear_cross_entropy(features, head, head, some_targets(2, 5)), c10::Error);
  CHECK_THROWS_AS(linear_cross_entropy(features, head, head, targets + 4), c10::Error);
  CHECK_THROWS_AS(linear_cross_entropy(features, head, head, targets - 1), c10::Error);
}

}  // namespace dsmoe
