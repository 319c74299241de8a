#include "csrc_kernels/router/router.h"

#include <ATen/Parallel.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>

#include <catch2/catch.hpp>
#include <cmath>

#include "csrc_kernels/random_tensors.h"

namespace dsmoe {
namespace {

struct RouterCase {
  at::Tensor x;
  RouterWeights weights;
};

// hidden follows from gate and up.
void refresh(RouterCase& c, at::ScalarType type) {
  if (!c.weights.gate.defined()) return;
  c.weights.hidden = at::cat({c.weights.gate.detach(), c.weights.up.detach()}, 0).to(type);
}

RouterCase make_router_case(RandomTensors& random, bool gated, int64_t n_rows, int64_t n_experts) {
  constexpr int64_t kModel = 11, kHidden = 7;
  RouterCase c{.x = random.leaf({n_rows, kModel}), .weights = {}};
  if (gated) {
    c.weights.gate = random.leaf({kHidden, kModel});
    c.weights.up = random.leaf({kHidden, kModel});
  }
  c.weights.out = random.leaf({n_experts, gated ? kHidden : kModel});
  refresh(c, at::kDouble);
  return c;
}

RouterCase copy_of_case(const RouterCase& c) {
  const auto copy = [](const at::Tensor& x) { return x.defined() ? leaf_copy(x) : x; };
  return {copy(c.x),
          {copy(c.weights.gate), copy(c.weights.up), c.weights.hidden, copy(c.weights.out)}};
}

}  // namespace

TEST_CASE("route: a worked value", "[csrc_kernels][moe]") {
  const auto x = at::tensor({1.0, 2.0}, at::kDouble).view({1, 2});
  RouterWeights weights;
  weights.out = at::tensor({1.0, 0.0, 0.0, 1.0}, at::kDouble).view({2, 2});
  const auto result = route(x, weights);
  CHECK(result.logits[0][1].item<double>() == 2.0);
  CHECK(result.probs[0][0].item<double>() == Approx(1.0 / (1.0 + std::exp(1.0))).epsilon(1e-14));
}

TEST_CASE("route: value and gradients equal the reference and finite differences",
          "[csrc_kernels][moe]") {
  RandomTensors random(71);
  for (const bool gated : {false, true}) {
    for (const auto& [n_rows, n_experts] :
         {std::pair<int64_t, int64_t>{1, 1}, {5, 3}, {9, 17}, {6, 33}}) {
      CAPTURE(gated, n_rows, n_experts);
      auto ours = make_router_case(random, gated, n_rows, n_experts);
      auto theirs = copy_of_case(ours);
      const auto seed = random.normal({n_rows, n_experts});
      const auto logit_seed = random.normal({n_rows, n_experts});
      const auto loss_of = [&](const RouterResult& result) {
        return (result.probs * seed).sum() + (result.logits * logit_seed).sum();
      };
      const auto result = route(ours.x, ours.weights);
      const auto reference = route_ref(theirs.x, theirs.weights);
      CHECK(max_difference(result.logits, reference.logits) < 1e-12);
      CHECK(max_difference(result.probs, reference.probs) < 1e-12);
      loss_of(result).backward();
      loss_of(reference).backward();
      const at::NoGradGuard no_grad;
      const auto loss = [&] {
        refresh(ours, at::kDouble);
        return loss_of(route(ours.x, ours.weights)).item<double>();
      };
      const std::pair<at::Tensor, at::Tensor> pairs[] = {{ours.x, theirs.x},
                                                         {ours.weights.gate, theirs.weights.gate},
                                                         {ours.weights.up, theirs.weights.up},
                                                         {ours.weights.out, theirs.weights.out}};
      for (const auto& [x, x_reference] : pairs) {
        if (!x.defined()) continue;
        CHECK(max_difference(x.grad(), x_reference.grad()) < 1e-11);
        CHECK(max_difference(x.grad(), numeric_gradient(loss, x)) < 1e-6);
      }
    }
  }
}

TEST_CASE("route: sigmoids and their gradients equal the reference", "[csrc_kernels][moe]") {
  RandomTensors random(76);
  for (const bool gated : {false, true}) {
    auto ours = make_router_case(random, gated, 21, 9);
    auto theirs = copy_of_case(ours);
    const auto seed = random.normal({21, 9});
    const auto result = route(ours.x, ours.weights, /*sigmoid=*/true);
    const auto reference = route_ref(theirs.x, theirs.weights, /*sigmoid=*/true);
    CHECK(max_difference(result.probs, reference.probs) < 1e-12);
    (result.probs * seed + result.logits.square()).sum().backward();
    (reference.probs * seed + reference.logits.square()).sum().backward();
    CHECK(max_difference(ours.x.grad(), theirs.x.grad()) < 1e-11);
    CHECK(max_difference(ours.weights.out.grad(), theirs.weights.out.grad()) < 1e-11);
  }
}

TEST_CASE("route: an output that is not used adds no gradient", "[csrc_kernels][moe]") {
  RandomTensors random(72);
  for (const bool use_probs : {false, true}) {
    auto ours = make_router_case(random, true, 6, 4);
    auto theirs = copy_of_case(ours);
    const auto seed = random.normal({6, 4});
    const auto pick = [&](const RouterResult& r) { return use_probs ? r.probs : r.logits; };
    (pick(route(ours.x, ours.weights)) * seed).sum().backward();
    (pick(route_ref(theirs.x, theirs.weights)) * seed).sum().backward();
    CHECK(max_difference(ours.x.grad(), theirs.x.grad()) < 1e-12);
    CHECK(max_difference(ours.weights.out.grad(), theirs.weights.out.grad()) < 1e-12);
  }
}

TEST_CASE("route: bfloat16 input gives float32 results within its tolerance",
          "[csrc_kernels][moe]") {
  RandomTensors random(73);
  for (const bool gated : {false, true}) {
    auto exact = make_router_case(random, gated, 40, 16);
    auto narrow = copy_of_case(exact);
    narrow.x = exact.x.detach().to(at::kBFloat16);
    exact.x = narrow.x.to(at::kDouble);
    narrow.weights.out = exact.weights.out.detach().to(at::kFloat).requires_grad_(true);
    if (gated) {
      narrow.weights.gate = exact.weights.gate.detach().to(at::kFloat).requires_grad_(true);
      narrow.weights.up = exact.weights.up.detach().to(at::kFloat).requires_grad_(true);
    }
    refresh(narrow, at::kBFloat16);
    const auto result = route(narrow.x, narrow.weights);
    const auto expected = route_ref(exact.x, exact.weights);
    CHECK(result.logits.scalar_type() == at::kFloat);
    const double tolerance = gated ? 2e-2 : 1e-5;
    const double scale = expected.logits.abs().max().item<double>();
    CHECK(max_difference(result.logits.to(at::kDouble), expected.logits) < tolerance * scale);
  }
}

TEST_CASE("route: one and two threads give the same bits", "[csrc_kernels][moe]") {
  const int before = at::get_num_threads();
  const auto run = [](int threads) {
    at::set_num_threads(threads);
    RandomTensors random(74);
    const auto x = random.normal({3001, 24}, at::kFloat).requires_grad_(true);
    RouterWeights weights;
    weights.out = random.normal({6, 24}, at::kFloat).requires_grad_(true);
    const auto result = route(x, weights);
    (result.probs.square().sum() + result.logits.square().sum()).backward();
    return std::vector{result.probs.detach(), x.grad(), weights.out.grad()};
  };
  const auto one = run(1);
  const auto two = run(2);
  at::set_num_threads(before);
  for (size_t i = 0; i < one.size(); ++i) CHECK(at::equal(one[i], two[i]));
}

TEST_CASE("route: wrong shapes and types throw", "[csrc_kernels][moe]") {
  RandomTensors random(75);
  auto c = make_router_case(random, true, 3, 2);
  c.weights.out = random.normal({2, 6});
  CHECK_THROWS_AS(route(c.x, c.weights), c10::Error);
  c = make_router_case(random, true, 3, 2);
  c.weights.hidden = c.weights.hidden.to(at::kFloat);
  CHECK_THROWS_AS(route(c.x, c.weights), c10::Error);
  c = make_router_case(random, false, 3, 2);
  c.weights.out = c.weights.out.detach().to(at::kFloat);
  CHECK_THROWS_AS(route(c.x, c.weights), c10::Error);
}

}  // namespace dsmoe
