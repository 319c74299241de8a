#include "csrc_kernels/residual_norm/residual_norm.h"

#include <ATen/Parallel.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <c10/util/BFloat16.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "csrc_kernels/random_tensors.h"

namespace dsmoe {
namespace {

struct Case {
  at::Tensor x, y;
  NormParameters parameters;
};

Case make_case(RandomTensors& random, NormKind kind, bool with_y, bool with_bias) {
  constexpr int64_t kRows = 5, kWidth = 21;
  return {.x = random.leaf({kRows, kWidth}, 2.0),
          .y = with_y ? random.leaf({kRows, kWidth}) : at::Tensor(),
          .parameters = {.kind = kind,
                         .eps = 1e-3,
                         .weight = random.leaf({kWidth}),
                         .bias = with_bias ? random.leaf({kWidth}) : at::Tensor()}};
}

at::Tensor copy_of(const at::Tensor& x) { return x.defined() ? leaf_copy(x) : x; }

Case copy_of(const Case& c) {
  return {copy_of(c.x),
          copy_of(c.y),
          {c.parameters.kind,
           c.parameters.eps,
           copy_of(c.parameters.weight),
           copy_of(c.parameters.bias)}};
}

}  // namespace

TEST_CASE("residual_norm: worked values", "[csrc_kernels][norm]") {
  const auto x = at::tensor({1.0, 2.0}, at::kDouble).view({1, 2});
  const auto y = at::tensor({2.0, 2.0}, at::kDouble).view({1, 2});
  NormParameters parameters{.kind = NormKind::kRmsNorm,
                            .eps = 0.0,
                            .weight = at::tensor({1.0, 10.0}, at::kDouble),
                            .bias = {}};
  // x + y = (3, 4), mean square 12.5
  const auto rms = residual_norm(x, y, parameters, at::kDouble);
  CHECK(rms.residual[0][1].item<double>() == 4.0);
  CHECK(rms.normed[0][0].item<double>() == Approx(3.0 / std::sqrt(12.5)).epsilon(1e-14));
  CHECK(rms.normed[0][1].item<double>() == Approx(40.0 / std::sqrt(12.5)).epsilon(1e-14));
  // mean 3.5, variance 0.25
  parameters.kind = NormKind::kLayerNorm;
  const auto layer = residual_norm(x, y, parameters, at::kDouble);
  CHECK(layer.normed[0][0].item<double>() == Approx(-1.0).epsilon(1e-14));
  CHECK(layer.normed[0][1].item<double>() == Approx(10.0).epsilon(1e-14));
}

TEST_CASE("residual_norm: value and gradients equal the reference and finite differences",
          "[csrc_kernels][norm]") {
  RandomTensors random(21);
  for (const auto kind : {NormKind::kRmsNorm, NormKind::kLayerNorm}) {
    for (const bool with_y : {false, true}) {
      for (const bool with_bias : {false, true}) {
        if (with_bias && kind == NormKind::kRmsNorm) continue;
        CAPTURE(static_cast<int>(kind), with_y, with_bias);
        auto ours = make_case(random, kind, with_y, with_bias);
        auto theirs = copy_of(ours);
        const auto seed = random.normal(ours.x.sizes());
        const auto residual_seed = random.normal(ours.x.sizes());
        const auto loss_of = [&](const ResidualNormOutput& output) {
          return (output.normed * seed).sum() + (output.residual * residual_seed).sum();
        };
        const auto run = [&] {
          return residual_norm(ours.x, ours.y, ours.parameters, at::kDouble);
        };
        const auto reference =
            residual_norm_ref(theirs.x, theirs.y, theirs.parameters, at::kDouble);
        CHECK(max_difference(run().normed, reference.normed) < 1e-12);
        CHECK(max_difference(run().residual, reference.residual) < 1e-15);
        loss_of(run()).backward();
        loss_of(reference).backward();
        const at::NoGradGuard no_grad;
        const auto loss = [&] { return loss_of(run()).item<double>(); };
        const std::pair<at::Tensor, at::Tensor> pairs[] = {
            {ours.x, theirs.x},
            {ours.y, theirs.y},
            {ours.parameters.weight, theirs.parameters.weight},
            {ours.parameters.bias, theirs.parameters.bias}};
        for (const auto& [x, x_reference] : pairs) {
          if (!x.defined()) continue;
          CHECK(max_difference(x.grad(), x_reference.grad()) < 1e-11);
          CHECK(max_difference(x.grad(), numeric_gradient(loss, x)) < 1e-7);
        }
      }
    }
  }
}

TEST_CASE("residual_norm: an unused output adds no gradient", "[csrc_kernels][norm]") {
  RandomTensors random(22);
  auto sum_only = make_case(random, NormKind::kRmsNorm, true, false);
  residual_norm(sum_only.x, sum_only.y, sum_only.parameters, at::kDouble).residual.sum().backward();
  CHECK(sum_only.x.grad().eq(1.0).all().item<bool>());
  CHECK(sum_only.y.grad().eq(1.0).all().item<bool>());
  auto ours = make_case(random, NormKind::kRmsNorm, true, false);
  auto theirs = copy_of(ours);
  const auto seed = random.normal(ours.x.sizes());
  (residual_norm(ours.x, ours.y, ours.parameters, at::kDouble).normed * seed).sum().backward();
  (residual_norm_ref(theirs.x, theirs.y, theirs.parameters, at::kDouble).normed * seed)
      .sum()
      .backward();
  CHECK(max_difference(ours.x.grad(), theirs.x.grad()) < 1e-12);
}

TEST_CASE("residual_norm: bfloat16 keeps a float32 residual", "[csrc_kernels][norm]") {
  RandomTensors random(23);
  const auto x = random.normal({9, 64}, at::kFloat).requires_grad_(true);
  const auto y = random.normal({9, 64}, at::kBFloat16).requires_grad_(true);
  const NormParameters parameters{.kind = NormKind::kRmsNorm,
                                  .eps = 1e-6,
                                  .weight = random.normal({64}, at::kFloat),
                                  .bias = {}};
  const auto ours = residual_norm(x, y, parameters, at::kBFloat16);
  const auto reference = residual_norm_ref(x, y, parameters, at::kFloat);
  CHECK(ours.residual.scalar_type() == at::kFloat);
  CHECK(max_difference(ours.residual, reference.residual) == 0.0);
  CHECK(ours.normed.scalar_type() == at::kBFloat16);
  CHECK(max_difference(ours.normed.to(at::kFloat), reference.normed) < 2e-2 * 4);
  ours.normed.sum().backward();
  CHECK(y.grad().scalar_type() == at::kBFloat16);
  CHECK(max_difference(y.grad().to(at::kFloat), x.grad()) < 2e-2);
}

TEST_CASE("residual_norm: bfloat16 is rounded once, after the weight", "[csrc_kernels][norm]") {
  // In units of 1/128 their squares sum to 8 * 4 exactly, so that 1 / rms is 0.5 in any order.
  const auto x =
      at::tensor({257.0F, -289.0F, 321.0F, -193.0F, 99.0F, 101.0F, 105.0F, 451.0F}) / 128;
  const auto weight = at::tensor({1.5F, 1.015625F, -0.7F, 3.0F, 0.33F, 1.25F, 9.0F, 1.1F});
  const NormParameters parameters{
      .kind = NormKind::kRmsNorm, .eps = 0.0, .weight = weight, .bias = {}};
  const auto normed = residual_norm(x.view({1, 8}), {}, parameters, at::kBFloat16).normed[0];
  const auto rounded = [](float value) { return static_cast<float>(c10::BFloat16(value)); };
  int n_unlike = 0;
  for (int64_t i = 0; i < 8; ++i) {
    const float scaled = x[i].item<float>() * 0.5F;
    const float w = weight[i].item<float>();
    const float ours = normed[i].item<float>();
    CHECK(ours == rounded(scaled * w));
    // A LLaMA that is bfloat16 throughout rounds both factors and then the product.
    const float thrice = rounded(rounded(scaled) * rounded(w));
    CHECK(std::abs(ours - thrice) <= 1.5F * 0x1p-7F * std::abs(ours));
    n_unlike += ours != thrice ? 1 : 0;
  }
  CHECK(normed[0].item<float>() == 1.5078125F);  // 1.5 if 257/256 is rounded before the weight
  CHECK(n_unlike == 4);
}

TEST_CASE("residual_norm: one and two threads give the same bits", "[csrc_kernels][norm]") {
  const int before = at::get_num_threads();
  const auto run = [](int threads) {
    at::set_num_threads(threads);
    RandomTensors random(24);
    auto x = random.normal({500, 67}, at::kFloat).requires_grad_(true);
    auto weight = random.normal({67}, at::kFloat).requires_grad_(true);
    const auto normed =
        residual_norm(x, {}, {NormKind::kLayerNorm, 1e-5, weight, {}}, at::kFloat).normed;
    (normed * normed).sum().backward();
    return std::pair{x.grad(), weight.grad()};
  };
  const auto one = run(1);
  const auto two = run(2);
  at::set_num_threads(before);
  CHECK(at::equal(one.first, two.first));
  CHECK(at::equal(one.second, two.second));
}

TEST_CASE("residual_norm: wrong shapes and types throw", "[csrc_kernels][norm]") {
  RandomTensors random(25);
  const auto x = random.normal({2, 4}, at::kFloat);
  const auto bias = random.normal({4}, at::kFloat);
  CHECK_THROWS_AS(residual_norm(x, {}, {NormKind::kRmsNorm, 1e-6, bias, bias}, at::kFloat),
                  c10::Error);
  const NormParameters good{NormKind::kRmsNorm, 1e-6, random.normal({4}, at::kFloat), {}};
  CHECK_THROWS_AS(residual_norm(x, random.normal({2, 5}, at::kFloat), good, at::kFloat),
                  c10::Error);
  CHECK_THROWS_AS(residual_norm(x, random.normal({2, 4}, at::kFloat), good, at::kBFloat16),
                  c10::Error);
  CHECK_THROWS_AS(residual_norm(x.to(at::kDouble), {}, good, at::kFloat), c10::Error);
  CHECK_THROWS_AS(
      residual_norm(
          x, {}, {NormKind::kRmsNorm, 1e-6, random.normal({5}, at::kFloat), {}}, at::kFloat),
      c10::Error);
}

}  // namespace dsmoe
