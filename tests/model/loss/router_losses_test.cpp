#include "model/loss/router_losses.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "csrc_kernels/random_tensors.h"

namespace dsmoe {

TEST_CASE("switch_balance_loss: value and gradient by hand", "[model][loss]") {
  // Two tokens, three experts, two selections each: f = (2, 1, 1) / 4, P = (0.5, 0.3, 0.2).
  const auto probs =
      leaf_copy(at::tensor({0.6, 0.3, 0.1, 0.4, 0.3, 0.3}, at::kDouble).view({2, 3}));
  const auto selected = at::tensor({1, 1, 0, 1, 0, 1}).view({2, 3}).to(at::kBool);
  const auto loss = switch_balance_loss(probs, selected);
  CHECK(loss.item<double>() == Approx(3 * (0.5 * 0.5 + 0.25 * 0.3 + 0.25 * 0.2)).margin(1e-14));
  loss.backward();
  // 3 f_i / n_tokens, the same for both tokens.
  const auto expected =
      at::tensor({0.75, 0.375, 0.375, 0.75, 0.375, 0.375}, at::kDouble).view({2, 3});
  CHECK(max_difference(probs.grad(), expected) < 1e-14);
}

TEST_CASE("switch_balance_loss: is one when balanced, n_experts when collapsed", "[model][loss]") {
  const auto uniform = at::full({8, 4}, 0.25, at::kDouble);
  CHECK(switch_balance_loss(uniform, at::ones({8, 4}, at::kBool)).item<double>() == Approx(1.0));
  auto collapsed = at::zeros({8, 4}, at::kDouble);
  collapsed.select(1, 2).fill_(1.0);
  CHECK(switch_balance_loss(collapsed, collapsed.to(at::kBool)).item<double>() == Approx(4.0));
}

TEST_CASE("switch_balance_loss: leading dimensions are flattened", "[model][loss]") {
  RandomTensors random(31);
  const auto probs = at::softmax(random.normal({2, 3, 5}), -1);
  const auto selected = probs > 0.2;
  CHECK(switch_balance_loss(probs, selected).item<double>() ==
        Approx(switch_balance_loss(probs.view({6, 5}), selected.view({6, 5})).item<double>()));
}

TEST_CASE("router_z_loss: value by hand", "[model][loss]") {
  const auto logits = at::zeros({1, 2, 4}, at::kDouble);
  CHECK(router_z_loss(logits).item<double>() == Approx(std::pow(std::log(4.0), 2)));
  const auto two = at::tensor({0.0, std::log(2.0), 1.0, 1.0}, at::kDouble).view({2, 2});
  const double expected = (std::pow(std::log(3.0), 2) + std::pow(1.0 + std::log(2.0), 2)) / 2;
  CHECK(router_z_loss(two).item<double>() == Approx(expected));
}

TEST_CASE("router_z_loss: the gradient equals finite differences", "[model][loss]") {
  RandomTensors random(32);
  const auto logits = random.leaf({2, 3, 4});
  router_z_loss(logits).backward();
  const auto x = logits.detach();
  const auto numeric = numeric_gradient([&] { return router_z_loss(x).item<double>(); }, x);
  CHECK(max_difference(logits.grad(), numeric) < 1e-8);
}

TEST_CASE("router_z_loss: huge logits stay finite", "[model][loss]") {
  CHECK(router_z_loss(at::full({2, 3}, 1e4, at::kFloat)).item<double>() ==
        Approx(std::pow(1e4 + std::log(3.0), 2)).epsilon(1e-6));
}

}  // namespace dsmoe
