// The ops of training on another device than the CPU, with its kernels.
#include "csrc_kernels/device_ops.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/randint.h>

#include "csrc_kernels/adamw/adamw.h"
#include "csrc_kernels/linear_cross_entropy/kernels.h"
#include "csrc_kernels/linear_cross_entropy/linear_cross_entropy.h"
#include "csrc_kernels/mutual_information/kernels.h"
#include "csrc_kernels/mutual_information/mutual_information.h"
#include "csrc_kernels/residual_norm/residual_norm.h"
#include "csrc_kernels/rotary/kernels.h"
#include "csrc_kernels/rotary/rotary.h"
#include "csrc_kernels/weighted_activation/weighted_activation.h"
#include "support/fake_device.h"

namespace dsmoe {
namespace {

using device_ops::check;
using device_ops::Kind;
using device_ops::Tensors;

constexpr Activation kActivations[] = {Activation::kIdentity,
                                       Activation::kGelu,
                                       Activation::kGeluTanh,
                                       Activation::kSwiglu,
                                       Activation::kSilu,
                                       Activation::kQuickGelu,
                                       Activation::kReluSquared};

}  // namespace

TEST_CASE("device: every op of training has its kernel", "[device_ops]") {
  test_device();
  CHECK(device_kernels<WeightedActivationKernels<float, float>>().forward != nullptr);
  CHECK(device_kernels<WeightedActivationKernels<Bfloat16, float>>().backward != nullptr);
  CHECK(device_kernels<ResidualNormKernels<float, float>>().forward != nullptr);
  CHECK(device_kernels<ResidualNormKernels<Bfloat16, float>>().backward != nullptr);
  CHECK(device_kernels<RotaryKernels<Bfloat16, float>>().rotate != nullptr);
  CHECK(device_kernels<MutualInformationKernels<float>>().sums != nullptr);
  CHECK(device_kernels<MutualInformationKernels<float>>().backward != nullptr);
  CHECK(device_kernels<CrossEntropyKernels<Bfloat16>>().run != nullptr);
}

TEST_CASE("device: weighted_activation", "[device_ops]") {
  RandomTensors random(1);
  for (const auto activation : kActivations) {
    // No rows, one expert, whole packs and not.
    for (const auto& [n_rows, n_experts, width] :
         {std::array<int64_t, 3>{0, 3, 8}, {5, 1, 7}, {9, 4, 40}}) {
      for (const bool weighted : {false, true}) {
        CAPTURE(static_cast<int>(activation), n_rows, n_experts, width, weighted);
        const bool gated = activation == Activation::kSwiglu;
        const auto rows = [&] { return random.normal({n_rows, n_experts * width}); };
        check(
            [&](const Tensors& x, at::ScalarType) {
              return Tensors{weighted_activation(activation, x[0], x[1], x[2]),
                             weighted_activation_linear(activation, x[0], x[1], x[2], x[3])};
            },
            {{rows()},
             {gated ? rows() : at::Tensor()},
             {weighted ? random.normal({n_rows, n_experts}) : at::Tensor(), Kind::kWide},
             {random.normal({6, n_experts * width})}});
      }
    }
  }
}

TEST_CASE("device: residual_norm", "[device_ops]") {
  RandomTensors random(2);
  for (const auto kind : {NormKind::kRmsNorm, NormKind::kLayerNorm}) {
    // Rows without packs; more rows than one chunk; a width that shared memory does not hold.
    for (const auto& [n_rows, width] :
         {std::array<int64_t, 2>{1, 7}, {600, 12}, {3, 1028}, {2, 6144}}) {
      for (const bool has_y : {false, true}) {
        CAPTURE(static_cast<int>(kind), n_rows, width, has_y);
        const bool has_bias = kind == NormKind::kLayerNorm;
        check(
            [&](const Tensors& x, at::ScalarType type) {
              const auto output = residual_norm(
                  x[0], x[1], {.kind = kind, .eps = 1e-5, .weight = x[2], .bias = x[3]}, type);
              return Tensors{output.residual, output.normed};
            },
            {{random.normal({n_rows, width}), Kind::kWide},
             {has_y ? random.normal({n_rows, width}) : at::Tensor()},
             {random.normal({width}), Kind::kWide},
             {has_bias ? random.normal({width}) : at::Tensor(), Kind::kWide}});
      }
    }
  }
}

TEST_CASE("device: rotary", "[device_ops]") {
  RandomTensors random(3);
  for (const auto& [n_rows, n_heads, half] :
       {std::array<int64_t, 3>{0, 2, 4}, {6, 3, 5}, {8, 2, 32}}) {
    CAPTURE(n_rows, n_heads, half);
    const auto angles = random.normal({2, half});
    const auto wide = [](at::ScalarType type) { return type == at::kDouble ? type : at::kFloat; };
    check(
        [&](const Tensors& x, at::ScalarType type) {
          const auto table = [&](const at::Tensor& t) {
            return t.to(wide(type)).to(x[0].device());
          };
          return Tensors{rotary(x[0], table(angles.cos()), table(angles.sin()))};
        },
        {{random.normal({n_rows, n_heads, 2 * half})}});
  }
}

TEST_CASE("device: mutual_information", "[device_ops]") {
  RandomTensors random(4);
  for (const auto& [n_rows, n_experts] :
       {std::array<int64_t, 2>{1, 1}, {70, 5}, {300, 32}, {40, 128}}) {
    for (const bool masked : {false, true}) {
      CAPTURE(n_rows, n_experts, masked);
      const auto counted = random.normal({n_rows}).gt(0.3);
      check(
          [&](const Tensors& x, at::ScalarType) {
            return Tensors{mutual_information(x[0], x[1], {}, 0),
                           mutual_information(x[0], x[1], x[2], 1000),
                           sum_softmax(x[0], x[1])};
          },
          {{random.normal({n_rows, n_experts}) * 3.0, Kind::kWide},
           {masked ? counted : at::Tensor(), Kind::kFixed},
           {random.normal({n_experts}).softmax(0).to(at::kFloat), Kind::kFixed}},
          {at::kDouble, at::kFloat});
    }
  }
}

TEST_CASE("device: linear_cross_entropy", "[device_ops]") {
  RandomTensors random(5);
  // The last vocabulary begins its rows where no pack may.
  for (const auto& [n_rows, d_model, vocab_size] :
       {std::array<int64_t, 3>{1, 8, 1}, {7, 16, 64}, {5, 8, 1031}}) {
    CAPTURE(n_rows, d_model, vocab_size);
    const auto targets = at::arange(n_rows, at::kLong).mul(37).remainder(vocab_size);
    check(
        [&](const Tensors& x, at::ScalarType type) {
          const auto copy = x[1].detach().to(type);
          return Tensors{linear_cross_entropy(x[0], x[1], copy, x[2])};
        },
        {{random.normal({n_rows, d_model})},
         {random.normal({vocab_size, d_model}), Kind::kWide},
         {targets, Kind::kFixed}});
  }
}

TEST_CASE("device: a target outside the vocabulary makes the loss NaN", "[device_ops]") {
  RandomTensors random(6);
  const auto device = test_device();
  const auto features = random.normal({3, 8}, at::kFloat).to(device);
  const auto head = random.normal({10, 8}, at::kFloat).to(device);
  for (const int64_t target : {int64_t{-1}, int64_t{10}}) {
    const auto targets = (at::arange(3, at::kLong) * 0 + target).to(device);
    CHECK(std::isnan(linear_cross_entropy(features, head, head, targets).item<double>()));
  }
}

TEST_CASE("device: no op of training waits for its device", "[device_ops]") {
  if (!is_emulated()) return;  // the fake device is the one that tells
  const auto device = test_device();
  RandomTensors random(8);
  const auto leaf = [&](at::IntArrayRef shape) {
    return random.normal(shape, at::kFloat).to(device).requires_grad_(true);
  };
  const auto up = leaf({6, 32}), weights = leaf({6, 4}), down = leaf({16, 32}),
             head = leaf({11, 16});
  const auto targets = at::arange(6, at::kLong).to(device);
  const auto counted = random.normal({6}).gt(0).to(device);
  const auto norm_weight = leaf({16});
  const ForbidWaits forbidden;
  const auto y = weighted_activation_linear(Activation::kGelu, up, {}, weights, down);
  const auto normed =
      residual_norm(y,
                    y,
                    {.kind = NormKind::kRmsNorm, .eps = 1e-5, .weight = norm_weight, .bias = {}},
                    at::kFloat)
          .normed;
  const auto loss = linear_cross_entropy(normed, head, head.detach(), targets) +
                    mutual_information(weights, {}, {}, 0) +
                    mutual_information(weights, counted, {}, 0);
  loss.backward();
  CHECK(up.grad().defined());
  CHECK_THROWS_WITH(loss.item<float>(), Catch::Contains("waits for it"));
}

TEST_CASE("device: adamw and the norm of gradients", "[device_ops]") {
  const auto run = [](at::Device device) {
    RandomTensors random(7);
    std::vector<AdamwSlot> slots;
    std::vector<at::Tensor> gradients;
    for (const int64_t n : {1, 5, 1000}) {
      const auto tensor = [&] { return random.normal({n}, at::kFloat).to(device); };
      slots.push_back({.parameter = tensor(),
                       .gradient = tensor(),
                       .exp_avg = tensor(),
                       .exp_avg_sq = tensor().abs(),
                       .step = n == 5 ? 3 : 1,
                       .weight_decay = n == 1 ? 0.0 : 0.1});
      gradients.push_back(slots.back().gradient.clone());
    }
    const double norm = gradient_norm(gradients);
    adamw_step(slots,
               {.lr = 0.01, .beta1 = 0.9, .beta2 = 0.95, .eps = 1e-8, .gradient_scale = 0.3});
    Tensors results;
    for (const auto& slot : slots) {
      for (const auto* tensor : {&slot.parameter, &slot.exp_avg, &slot.exp_avg_sq}) {
        results.push_back(tensor->cpu());
      }
    }
    return std::pair(norm, results);
  };
  const auto [norm, expected] = run(at::kCPU);
  const auto [device_norm, got] = run(test_device());
  CHECK(device_norm == Approx(norm).epsilon(1e-6));
  for (size_t i = 0; i < got.size(); ++i) CHECK(max_difference(got[i], expected[i]) < 1e-6);
}

}  // namespace dsmoe
