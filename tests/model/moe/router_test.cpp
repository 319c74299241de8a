#include "model/moe/router.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <c10/util/Exception.h>

#include <catch2/catch.hpp>

#include "model/module_testing.h"

namespace dsmoe {
namespace {

Router make_router(RouterKind kind, uint64_t seed) {
  Router router(12, 5, RouterConfig{.kind = kind, .d_hidden = 7, .renormalise = false});
  randomise(*router, seed, 0.5);
  return router;
}

}  // namespace

TEST_CASE("Router: probabilities sum to one per token", "[model][router]") {
  for (const auto& [kind, name, doc, hidden] : kRouterKinds) {
    INFO(name);
    auto router = make_router(kind, 61);
    const auto out = router(RandomTensors(62).normal({2, 3, 12}, at::kFloat));
    REQUIRE(out.router_probs.sizes() == at::IntArrayRef({2, 3, 5}));
    REQUIRE(out.router_logits.sizes() == at::IntArrayRef({2, 3, 5}));
    CHECK(max_difference(out.router_probs.sum(-1), at::ones({2, 3})) < 1e-6);
    CHECK(max_difference(out.router_probs, at::softmax(out.router_logits, -1)) < 1e-6);
    CHECK(out.router_probs.min().item<float>() > 0);
  }
}

TEST_CASE("Router: kinds and their rows have one order", "[model][router]") {
  for (const auto& row : kRouterKinds) CHECK(&row_of(row.kind) == &row);
}

TEST_CASE("Router: every kind packed in float32 gives its logits", "[model][router]") {
  const at::NoGradGuard no_grad;
  const auto x = RandomTensors(73).normal({2, 3, 12}, at::kFloat);
  for (const auto& [kind, name, doc, hidden] : kRouterKinds) {
    INFO(name);
    auto router = make_router(kind, 74);
    const auto expected = router(x).router_logits;
    router->pack({.format = PackedFormat::kFloat32});
    CHECK(max_difference(router(x).router_logits, expected) < 1e-5);
  }
}

TEST_CASE("Router: linear is one matrix, swiglu three, without bias", "[model][router]") {
  const Router linear(
      64, 16, RouterConfig{.kind = RouterKind::kLinear, .d_hidden = 1, .renormalise = false});
  CHECK(count_parameters(*linear) == 64 * 16);
  const Router swiglu(
      64, 16, RouterConfig{.kind = RouterKind::kSwiglu, .d_hidden = 256, .renormalise = false});
  CHECK(count_parameters(*swiglu) == 512 * 64 + 256 * 16);
}

TEST_CASE("Router: logits equal the written formula", "[model][router]") {
  const auto x = RandomTensors(63).normal({2, 3, 12});
  auto linear = make_router(RouterKind::kLinear, 64);
  linear->to(at::kDouble);
  CHECK(max_difference(linear(x).router_logits,
                       x.matmul(parameter(*linear, "out_proj.weight").t())) < 1e-13);

  auto swiglu = make_router(RouterKind::kSwiglu, 65);
  swiglu->to(at::kDouble);
  const auto gate = x.matmul(parameter(*swiglu, "gate_proj.weight").t());
  const auto up = x.matmul(parameter(*swiglu, "up_proj.weight").t());
  const auto expected =
      (gate * at::sigmoid(gate) * up).matmul(parameter(*swiglu, "out_proj.weight").t());
  CHECK(max_difference(swiglu(x).router_logits, expected) < 1e-13);
}

TEST_CASE("Router: mlp is two layers with GELU between", "[model][router]") {
  auto mlp = make_router(RouterKind::kMlp, 75);
  mlp->to(at::kDouble);
  CHECK(count_parameters(*mlp) == 7 * 12 + 5 * 7);
  const auto x = RandomTensors(76).normal({2, 3, 12});
  const auto hidden = at::gelu(x.matmul(parameter(*mlp, "up_proj.weight").t()));
  const auto expected = hidden.matmul(parameter(*mlp, "out_proj.weight").t());
  CHECK(max_difference(mlp(x).router_logits, expected) < 1e-13);
}

TEST_CASE("Router: logits and probabilities are float32 for bfloat16 input", "[model][router]") {
  const auto x = RandomTensors(67).normal({2, 3, 12}, at::kBFloat16);
  auto linear = make_router(RouterKind::kLinear, 66);
  CHECK(linear(x).router_probs.scalar_type() == at::kFloat);
  CHECK(at::equal(linear(x).router_logits, linear(x.to(at::kFloat)).router_logits));
  CHECK(at::equal(linear(x).router_probs, linear(x.to(at::kFloat)).router_probs));
  // The hidden layer of the swiglu form is a bfloat16 product.
  auto swiglu = make_router(RouterKind::kSwiglu, 66);
  const auto wide = swiglu(x.to(at::kFloat)).router_logits;
  CHECK(swiglu(x).router_logits.scalar_type() == at::kFloat);
  CHECK(max_difference(swiglu(x).router_logits, wide) < 2e-2 * wide.abs().max().item<double>());
}

TEST_CASE("Router: gradients equal finite differences", "[model][router]") {
  for (const auto& [kind, name, doc, hidden] : kRouterKinds) {
    INFO(name);
    auto router = make_router(kind, 68);
    router->to(at::kDouble);
    const auto x = RandomTensors(69).leaf({1, 2, 12});
    const auto upstream = RandomTensors(70).normal({1, 2, 5});
    const auto loss = [&] {
      return (router(x.detach()).router_probs * upstream).sum().item<double>();
    };
    router->zero_grad();
    (router(x).router_probs * upstream).sum().backward();
    CHECK(max_difference(x.grad(), numeric_gradient(loss, x.detach())) < 1e-8);
    for (auto& item : router->named_parameters()) {
      INFO(item.key());
      CHECK(max_difference(item.value().grad(), numeric_gradient(loss, item.value().detach())) <
            1e-8);
    }
  }
}

TEST_CASE("Router: a wrong width or rank throws", "[model][router]") {
  auto router = make_router(RouterKind::kLinear, 71);
  RandomTensors random(72);
  CHECK_THROWS_AS(router(random.normal({2, 3, 11}, at::kFloat)), c10::Error);
  CHECK_THROWS_AS(router(random.normal({3, 12}, at::kFloat)), c10::Error);
}

}  // namespace dsmoe
