#include "model/loss/mutual_information.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/eye.h>
#include <ATen/ops/log.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "csrc_kernels/random_tensors.h"

namespace dsmoe {
namespace {

at::Tensor worked_logits() {
  return at::tensor({1.0, 0.0, -1.0, 0.5, 2.0, 0.0}, at::kDouble).view({2, 3});
}

double value(const at::Tensor& loss) { return loss.item<double>(); }

/// dL/dz_tj = (p_tj / T) (log(mean_j / p_tj) + KL(p_t || mean)); papers/ds-moe.md, section 2.
at::Tensor closed_form_gradient(const at::Tensor& logits) {
  const auto p = at::softmax(logits, 1);
  const auto ratio = at::log(p.mean(0, /*keepdim=*/true) / p);
  const auto kl = -(p * ratio).sum(1, /*keepdim=*/true);
  return p / static_cast<double>(logits.size(0)) * (ratio + kl);
}

}  // namespace

TEST_CASE("mutual_information_loss: the worked example", "[model][loss]") {
  const auto logits = leaf_copy(worked_logits());
  const auto loss = mutual_information_loss(logits);
  CHECK(loss.dim() == 0);
  CHECK(loss.scalar_type() == at::kDouble);
  CHECK(value(loss) == Approx(-0.14562853).margin(1e-7));
  loss.backward();
  const auto expected = at::tensor({-0.11074867,
                                    0.10213138,
                                    0.00861729,  //
                                    0.08853165,
                                    -0.09363181,
                                    0.00510016},
                                   at::kDouble)
                            .view({2, 3});
  CHECK(max_difference(logits.grad(), expected) < 1e-7);
}

TEST_CASE("mutual_information_loss: float32 and bfloat16 logits give a float32 loss",
          "[model][loss]") {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const auto loss = mutual_information_loss(worked_logits().to(dtype));
    CHECK(loss.scalar_type() == at::kFloat);
    CHECK(value(loss) == Approx(-0.14562853).margin(1e-6));  // the logits are exact in bfloat16
  }
}

TEST_CASE("mutual_information_loss: autograd, closed form and finite differences agree",
          "[model][loss]") {
  RandomTensors random(21);
  const auto logits = random.leaf({7, 5}, 1.5);
  mutual_information_loss(logits).backward();
  CHECK(max_difference(logits.grad(), closed_form_gradient(logits.detach())) < 1e-13);
  const auto x = logits.detach();
  const auto numeric = numeric_gradient([&] { return value(mutual_information_loss(x)); }, x);
  CHECK(max_difference(logits.grad(), numeric) < 1e-9);
}

TEST_CASE("mutual_information_loss: is zero, its worst, when all tokens agree", "[model][loss]") {
  RandomTensors random(22);
  const auto same = random.normal({1, 6}).repeat({9, 1});
  CHECK(std::abs(value(mutual_information_loss(same))) < 1e-14);

  const auto zero = leaf_copy(at::zeros({9, 6}, at::kDouble));
  const auto loss = mutual_information_loss(zero);
  loss.backward();
  // The trap: no way out without noise. Zero but for the rounding of log and exp in float64.
  CHECK(std::abs(value(loss)) < 1e-15);
  CHECK(zero.grad().abs().max().item<double>() < 1e-16);

  const auto noisy = random.leaf({9, 6}, 1e-2);
  mutual_information_loss(noisy).backward();
  CHECK(noisy.grad().abs().max().item<double>() > 0.0);
}

TEST_CASE("mutual_information_loss: is -log(n_experts), its best, when balanced and one-hot",
          "[model][loss]") {
  for (const int64_t n_experts : {1, 2, 5, 32}) {
    const auto logits = at::eye(n_experts, at::kDouble).repeat({3, 1}) * 2000.0;
    CHECK(value(mutual_information_loss(logits)) ==
          Approx(-std::log(static_cast<double>(n_experts))).margin(1e-12));
  }
}

TEST_CASE("mutual_information_loss: saturated float32 probabilities give finite gradients",
          "[model][loss]") {
  const auto logits = leaf_copy((at::eye(4, at::kDouble) * 1e4).to(at::kFloat));
  const auto loss = mutual_information_loss(logits);
  loss.backward();
  CHECK(value(loss) == Approx(-std::log(4.0)).margin(1e-5));
  CHECK(logits.grad().isfinite().all().item<bool>());
}

TEST_CASE("mutual_information_loss: lies between its bounds for random logits", "[model][loss]") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    RandomTensors random(seed);
    const auto loss =
        value(mutual_information_loss(random.normal({13, 8}) * static_cast<double>(seed)));
    CHECK(loss <= 0.0);
    CHECK(loss >= -std::log(8.0));
  }
}

TEST_CASE("mutual_information_loss: batch and seq are flattened", "[model][loss]") {
  RandomTensors random(23);
  const auto logits = random.normal({3, 4, 5});
  CHECK(value(mutual_information_loss(logits)) ==
        Approx(value(mutual_information_loss(logits.reshape({12, 5})))).margin(1e-15));
}

TEST_CASE("mutual_information_loss: micro-batches with global statistics sum to the whole",
          "[model][loss]") {
  RandomTensors random(24);
  const auto whole = random.leaf({3, 4, 6}, 2.0);
  const auto expected = mutual_information_loss(whole);
  expected.backward();

  const auto sum = sum_router_probs(whole.detach());
  REQUIRE(sum.sizes() == at::IntArrayRef({6}));
  CHECK(max_difference(sum, at::softmax(whole.detach(), -1).sum(at::IntArrayRef({0, 1}))) < 1e-12);
  CHECK_FALSE(sum_router_probs(whole).requires_grad());
  const auto mean = sum / 12.0;
  double total = 0;
  const auto parts = leaf_copy(whole);
  const int64_t begins[] = {0, 1, 3};
  for (int i = 0; i < 2; ++i) {  // unequal parts: one sequence, then two
    const auto part = parts.slice(0, begins[i], begins[i + 1]);
    const auto loss = mutual_information_loss(part, {}, mean, 12);
    total += value(loss);
    loss.backward();
  }
  CHECK(total == Approx(value(expected)).margin(1e-12));
  CHECK(max_difference(parts.grad(), whole.grad()) < 1e-12);
}

TEST_CASE("mutual_information_loss: local statistics of a half differ from the global ones",
          "[model][loss]") {
  RandomTensors random(25);
  const auto logits = random.normal({8, 4}) * 2.0;
  const auto halves = logits.chunk(2, 0);
  const double local =
      (value(mutual_information_loss(halves[0])) + value(mutual_information_loss(halves[1]))) / 2;
  CHECK(std::abs(local - value(mutual_information_loss(logits))) > 1e-3);
}

TEST_CASE("mutual_information_loss: masked tokens change neither value nor gradient",
          "[model][loss]") {
  RandomTensors random(26);
  const auto logits = random.leaf({2, 4, 5}, 2.0);
  const auto mask = at::tensor({1, 1, 1, 0, 1, 0, 0, 0}).view({2, 4}).to(at::kBool);
  const auto kept = leaf_copy(at::cat({logits[0].slice(0, 0, 3), logits[1].slice(0, 0, 1)}, 0));
  const auto masked_loss = mutual_information_loss(logits, mask);
  const auto kept_loss = mutual_information_loss(kept);
  CHECK(value(masked_loss) == Approx(value(kept_loss)).margin(1e-14));
  masked_loss.backward();
  kept_loss.backward();
  CHECK(max_difference(logits.grad()[0].slice(0, 0, 3), kept.grad().slice(0, 0, 3)) < 1e-14);
  CHECK(max_difference(logits.grad()[1].slice(0, 0, 1), kept.grad().slice(0, 3, 4)) < 1e-14);
  CHECK(logits.grad()[0][3].abs().max().item<double>() == 0.0);
  CHECK(logits.grad()[1].slice(0, 1).abs().max().item<double>() == 0.0);
  CHECK(max_difference(sum_router_probs(logits, mask), sum_router_probs(kept)) < 1e-14);

  const auto all = at::ones({2, 4}, at::kBool);
  CHECK(value(mutual_information_loss(logits, all)) ==
        Approx(value(mutual_information_loss(logits))).margin(1e-14));
}

TEST_CASE("mutual_information_loss: a call without a counted token is zero, not NaN",
          "[model][loss]") {
  RandomTensors random(27);
  const auto logits = random.leaf({3, 4});
  const auto loss = mutual_information_loss(logits, at::zeros({3}, at::kBool));
  CHECK(value(loss) == 0.0);
  loss.backward();
  CHECK(logits.grad().abs().max().item<double>() == 0.0);
}

}  // namespace dsmoe
