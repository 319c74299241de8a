#include "csrc_kernels/weighted_activation/weighted_activation.h"

#include <ATen/ops/empty_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/tensor.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "csrc_kernels/common/tensors.h"
#include "csrc_kernels/random_tensors.h"

namespace dsmoe {
namespace {

constexpr Activation kActivations[] = {Activation::kIdentity,
                                       Activation::kGelu,
                                       Activation::kGeluTanh,
                                       Activation::kSwiglu,
                                       Activation::kSilu,
                                       Activation::kQuickGelu,
                                       Activation::kReluSquared};

struct ActivationCase {
  at::Tensor up;
  at::Tensor gate;     // swiglu only
  at::Tensor weights;  // undefined where unweighted
  at::Tensor down;     // [d_out, n_experts * width]
};

ActivationCase make_activation_case(RandomTensors& random, Activation activation, bool weighted) {
  constexpr int64_t kRows = 7, kExperts = 3, kWidth = 19, kOut = 5;
  return {.up = random.leaf({kRows, kExperts * kWidth}, 2.0),
          .gate = activation == Activation::kSwiglu ? random.leaf({kRows, kExperts * kWidth}, 2.0)
                                                    : at::Tensor(),
          .weights = weighted ? random.leaf({kRows, kExperts}) : at::Tensor(),
          .down = random.leaf({kOut, kExperts * kWidth})};
}

at::Tensor cast(const at::Tensor& x, at::ScalarType type) { return x.defined() ? x.to(type) : x; }

}  // namespace

TEST_CASE("weighted_activation: worked values", "[csrc_kernels][moe]") {
  const auto up = at::tensor({1.0, -2.0, 0.5, 3.0}, at::kDouble).view({1, 4});
  const auto weights = at::tensor({0.25, 0.75}, at::kDouble).view({1, 2});
  // gelu(1) = 0.841344746068543, gelu(-2) = -0.0455002638963584, from the normal distribution.
  const auto y = weighted_activation(Activation::kGelu, up, {}, weights);
  CHECK(y[0][0].item<double>() == Approx(0.25 * 0.841344746068543).epsilon(1e-12));
  CHECK(y[0][1].item<double>() == Approx(0.25 * -0.0455002638963584).epsilon(1e-12));
  const auto gate = at::tensor({0.0, 1.0, -1.0, 2.0}, at::kDouble).view({1, 4});
  // silu(1) * -2 = -2 / (1 + e^-1) = -1.46211715726001
  const auto z = weighted_activation(Activation::kSwiglu, up, gate, weights);
  CHECK(z[0][0].item<double>() == 0.0);
  CHECK(z[0][1].item<double>() == Approx(0.25 * -1.46211715726001).epsilon(1e-12));
  // 3 / (1 + e^-3) = 2.85772238047; 3 / (1 + e^-5.106) = 2.98192869029
  const auto last = [&](Activation activation) {
    return weighted_activation(activation, up, {}, weights)[0][3].item<double>();
  };
  CHECK(last(Activation::kSilu) == Approx(0.75 * 2.85772238047).epsilon(1e-11));
  CHECK(last(Activation::kQuickGelu) == Approx(0.75 * 2.98192869029).epsilon(1e-11));
  CHECK(last(Activation::kReluSquared) == 0.75 * 9.0);
}

TEST_CASE("weighted_activation: value and gradients equal the reference and finite differences",
          "[csrc_kernels][moe]") {
  RandomTensors random(11);
  for (const auto activation : kActivations) {
    for (const bool weighted : {false, true}) {
      CAPTURE(static_cast<int>(activation), weighted);
      auto ours = make_activation_case(random, activation, weighted);
      ActivationCase reference{leaf_copy(ours.up),
                               ours.gate.defined() ? leaf_copy(ours.gate) : at::Tensor(),
                               weighted ? leaf_copy(ours.weights) : at::Tensor(),
                               leaf_copy(ours.down)};
      const auto seed = random.normal({ours.up.size(0), ours.down.size(0)});
      const auto run = [&](const ActivationCase& c) {
        return weighted_activation_linear(activation, c.up, c.gate, c.weights, c.down);
      };
      const auto y = run(ours);
      const auto y_reference = at::mm(
          weighted_activation_ref(activation, reference.up, reference.gate, reference.weights),
          reference.down.t());
      CHECK(max_difference(y, y_reference) < 1e-12);
      CHECK(max_difference(at::mm(weighted_activation(activation, ours.up, ours.gate, ours.weights),
                                  ours.down.t()),
                           y_reference) < 1e-12);
      (y * seed).sum().backward();
      (y_reference * seed).sum().backward();
      const at::NoGradGuard no_grad;
      const auto loss = [&] { return (run(ours) * seed).sum().item<double>(); };
      const std::pair<at::Tensor, at::Tensor> pairs[] = {{ours.up, reference.up},
                                                         {ours.gate, reference.gate},
                                                         {ours.weights, reference.weights},
                                                         {ours.down, reference.down}};
      for (const auto& [x, x_reference] : pairs) {
        if (!x.defined()) continue;
        CHECK(max_difference(x.grad(), x_reference.grad()) < 1e-11);
        CHECK(max_difference(x.grad(), numeric_gradient(loss, x)) < 1e-7);
      }
    }
  }
}

TEST_CASE("weighted_activation: the plain form has the gradients of the fused form",
          "[csrc_kernels][moe]") {
  RandomTensors random(12);
  for (const auto activation : kActivations) {
    auto fused = make_activation_case(random, activation, true);
    ActivationCase plain{leaf_copy(fused.up),
                         fused.gate.defined() ? leaf_copy(fused.gate) : at::Tensor(),
                         leaf_copy(fused.weights),
                         leaf_copy(fused.down)};
    const auto seed = random.normal({fused.up.size(0), fused.down.size(0)});
    (weighted_activation_linear(activation, fused.up, fused.gate, fused.weights, fused.down) * seed)
        .sum()
        .backward();
    (at::mm(weighted_activation(activation, plain.up, plain.gate, plain.weights), plain.down.t()) *
     seed)
        .sum()
        .backward();
    CHECK(max_difference(fused.up.grad(), plain.up.grad()) < 1e-12);
    CHECK(max_difference(fused.weights.grad(), plain.weights.grad()) < 1e-12);
    CHECK(max_difference(fused.down.grad(), plain.down.grad()) < 1e-12);
    if (fused.gate.defined()) CHECK(max_difference(fused.gate.grad(), plain.gate.grad()) < 1e-12);
  }
}

TEST_CASE("weighted_activation: float32 and bfloat16 stay within their tolerance",
          "[csrc_kernels][moe]") {
  RandomTensors random(13);
  for (const auto activation : kActivations) {
    const auto exact = make_activation_case(random, activation, true);
    const auto expected = weighted_activation_ref(activation, exact.up, exact.gate, exact.weights);
    for (const auto& [type, tolerance] :
         {std::pair{at::kFloat, 1e-5}, std::pair{at::kBFloat16, 2e-2}}) {
      CAPTURE(static_cast<int>(activation), type);
      const auto up = cast(exact.up.detach(), type);
      const auto gate = cast(exact.gate.defined() ? exact.gate.detach() : exact.gate, type);
      const auto y =
          weighted_activation(activation, up, gate, exact.weights.detach().to(at::kFloat));
      const auto scale = std::max(1.0, expected.abs().max().item<double>());
      CHECK(max_difference(y.to(at::kDouble), expected) < tolerance * scale);
    }
  }
}

TEST_CASE("weighted_activation: every instruction set gives the same numbers",
          "[csrc_kernels][moe]") {
  RandomTensors random(14);
  for (const auto activation : kActivations) {
    auto c = make_activation_case(random, activation, true);
    const auto up = c.up.detach().to(at::kFloat);
    const auto gate = cast(c.gate.defined() ? c.gate.detach() : c.gate, at::kFloat);
    const auto weights = c.weights.detach().to(at::kFloat);
    const auto run = [&](auto&& function) {
      auto hidden = at::empty_like(up);
      function(activation,
               WeightedActivationRows<float, float>{.n_rows = up.size(0),
                                                    .n_experts = weights.size(1),
                                                    .width = up.size(1) / weights.size(1),
                                                    .up = pointer<const float>(up),
                                                    .gate = pointer<const float>(gate),
                                                    .weights = pointer<const float>(weights),
                                                    .hidden = pointer<float>(hidden)});
      return hidden;
    };
    const auto portable =
        run(isa_kernels<CpuIsa::kPortable, WeightedActivationKernels<float, float>>().forward);
    const auto expected = weighted_activation_ref(activation, up, gate, weights);
    CHECK(max_difference(portable, expected) < 1e-5);
    if (cpu_isa() >= CpuIsa::kAvx2) {
      CHECK(max_difference(
                run(isa_kernels<CpuIsa::kAvx2, WeightedActivationKernels<float, float>>().forward),
                expected) < 1e-5);
    }
  }
}

TEST_CASE("weighted_activation: wrong shapes and types throw", "[csrc_kernels][moe]") {
  RandomTensors random(15);
  const auto up = random.normal({2, 6});
  CHECK_THROWS_AS(weighted_activation(Activation::kSwiglu, up, {}, {}), c10::Error);
  CHECK_THROWS_AS(weighted_activation(Activation::kGelu, up, up, {}), c10::Error);
  CHECK_THROWS_AS(weighted_activation(Activation::kGelu, up, {}, random.normal({2, 4})),
                  c10::Error);
  CHECK_THROWS_AS(weighted_activation(Activation::kGelu, up, {}, random.normal({3, 2})),
                  c10::Error);
  CHECK_THROWS_AS(weighted_activation(Activation::kGelu, up, {}, random.normal({2, 2}, at::kFloat)),
                  c10::Error);
  CHECK_THROWS_AS(weighted_activation_linear(Activation::kGelu, up, {}, {}, random.normal({4, 5})),
                  c10::Error);
}

}  // namespace dsmoe
