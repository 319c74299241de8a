#include "csrc_kernels/token_choice/token_choice.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <numeric>
#include <vector>

#include "csrc_kernels/dispatch/dispatch.h"
#include "csrc_kernels/random_tensors.h"
#include "model/moe/routing_policy.h"

namespace dsmoe {
namespace {

at::Tensor random_probs(uint64_t seed, int64_t n_tokens, int64_t n_experts, double scale = 1.5) {
  return at::softmax(RandomTensors(seed).normal({n_tokens, n_experts}) * scale, 1);
}

TokenChoice choose(const at::Tensor& probs, const RoutingPolicy& policy, bool renormalise) {
  auto rule = policy.rule(static_cast<double>(probs.size(-1)));
  rule.renormalise = renormalise;
  return choose_experts(probs, rule);
}

/// Fills freed blocks of many sizes with NaN, and true for bool, so that reading them shows.
void poison_memory() {
  std::vector<at::Tensor> blocks;
  for (int64_t size = 1; size <= 4096; size *= 2) {
    for (int i = 0; i < 16; ++i) {
      blocks.push_back(at::full({size}, NAN, at::kDouble));
      blocks.push_back(at::full({size}, NAN, at::kFloat));
      blocks.push_back(at::ones({size}, at::kBool));
    }
  }
}

std::vector<int64_t> counts_per_token(const TokenChoice& selection) {
  const auto counts = selection.selected.sum(1).to(at::kLong).contiguous();
  const auto* data = counts.const_data_ptr<int64_t>();
  return {data, data + counts.numel()};
}

const std::vector<RoutingPolicy> kPolicies = {RoutingPolicy::all(),
                                              RoutingPolicy::top_k(1),
                                              RoutingPolicy::top_k(3),
                                              RoutingPolicy::threshold(0.6),
                                              RoutingPolicy::threshold(0.6, 2),
                                              RoutingPolicy::threshold(2.5),
                                              RoutingPolicy::threshold_top_k(0.6)};

}  // namespace

TEST_CASE("choose_experts: unselected weights are exactly zero in poisoned memory",
          "[model][moe]") {
  for (const auto dtype : {at::kDouble, at::kFloat}) {
    const auto probs = random_probs(41, 33, 7).to(dtype);
    for (const auto& policy : kPolicies) {
      for (const bool renormalise : {false, true}) {
        INFO(policy.to_string() << " renormalise " << renormalise);
        poison_memory();
        const auto selection = choose(probs, policy, renormalise);
        REQUIRE(selection.selected.sizes() == probs.sizes());
        REQUIRE(selection.selected.scalar_type() == at::kBool);
        REQUIRE(selection.expert_weights.scalar_type() == dtype);
        const auto unselected =
            selection.expert_weights.masked_select(selection.selected.logical_not());
        CHECK(at::equal(unselected, at::zeros_like(unselected)));
        CHECK(selection.expert_weights.isfinite().all().item<bool>());
      }
    }
  }
}

TEST_CASE("choose_experts: weights are the router's probabilities, not renormalised",
          "[model][moe]") {
  const auto probs = random_probs(42, 20, 6);
  for (const auto& policy : kPolicies) {
    INFO(policy.to_string());
    const auto selection = choose(probs, policy, false);
    const auto expected = at::where(selection.selected, probs, at::zeros_like(probs));
    CHECK(at::equal(selection.expert_weights, expected));
  }
  const auto sums = choose(probs, RoutingPolicy::top_k(2), false).expert_weights.sum(1);
  CHECK(sums.max().item<double>() < 1.0);
}

TEST_CASE("choose_experts: renormalised weights sum to one", "[model][moe]") {
  const auto probs = random_probs(43, 20, 6);
  for (const auto& policy : {RoutingPolicy::top_k(2),
                             RoutingPolicy::threshold(0.9),
                             RoutingPolicy::threshold_top_k(0.9)}) {
    const auto plain = choose(probs, policy, false);
    const auto selection = choose(probs, policy, true);
    CHECK(at::equal(selection.selected, plain.selected));
    CHECK(max_difference(selection.expert_weights.sum(1), at::ones({20}, at::kDouble)) < 1e-14);
    const auto expected = plain.expert_weights / plain.expert_weights.sum(1, /*keepdim=*/true);
    CHECK(max_difference(selection.expert_weights, expected) < 1e-14);
  }
}

TEST_CASE("choose_experts: top_k takes the strongest", "[model][moe]") {
  const auto probs = random_probs(44, 25, 9);
  for (int64_t k = 1; k <= 9; ++k) {
    const auto selection = choose(probs, RoutingPolicy::top_k(k), false);
    for (int64_t t = 0; t < 25; ++t) {
      CHECK(counts_per_token(selection)[t] == k);
      const auto chosen = probs[t].masked_select(selection.selected[t]);
      const auto others = probs[t].masked_select(selection.selected[t].logical_not());
      if (k < 9) CHECK(chosen.min().item<double>() > others.max().item<double>());
    }
  }
}

TEST_CASE("choose_experts: top_k chooses exactly k among ties", "[model][moe]") {
  const auto probs = at::full({4, 6}, 1.0 / 6, at::kDouble);
  const auto selection = choose(probs, RoutingPolicy::top_k(2), false);
  CHECK(counts_per_token(selection) == std::vector<int64_t>(4, 2));
}

TEST_CASE("choose_experts: all, top_k = n_experts and threshold 0 select the same",
          "[model][moe]") {
  const auto probs = random_probs(45, 11, 5);
  for (const auto& policy :
       {RoutingPolicy::all(), RoutingPolicy::top_k(5), RoutingPolicy::threshold(0.0)}) {
    const auto selection = choose(probs, policy, false);
    CHECK(selection.selected.all().item<bool>());
    CHECK(at::equal(selection.expert_weights, probs));
  }
}

TEST_CASE("choose_experts: threshold compares n_experts * prob strictly", "[model][moe]") {
  // Times four: 2, 1, 0.5, 0.5 and 1, 1, 1, 1; all exact in binary.
  const auto probs =
      at::tensor({0.5, 0.25, 0.125, 0.125, 0.25, 0.25, 0.25, 0.25}, at::kDouble).view({2, 4});
  const auto counts = [&](double epsilon) {
    return counts_per_token(choose(probs, RoutingPolicy::threshold(epsilon), false));
  };
  CHECK(counts(0.0) == std::vector<int64_t>{4, 4});
  CHECK(counts(0.49) == std::vector<int64_t>{4, 4});
  CHECK(counts(0.5) == std::vector<int64_t>{2, 4});
  CHECK(counts(0.99) == std::vector<int64_t>{2, 4});
  CHECK(counts(1.0) == std::vector<int64_t>{1, 0});
  CHECK(counts(2.0) == std::vector<int64_t>{0, 0});
}

TEST_CASE("choose_experts: below epsilon 1 every token has an expert, and the counts vary",
          "[model][moe]") {
  for (uint64_t seed = 1; seed <= 10; ++seed) {
    const auto probs = random_probs(seed, 40, 8);
    const auto counts = counts_per_token(choose(probs, RoutingPolicy::threshold(0.999), false));
    CHECK(*std::min_element(counts.begin(), counts.end()) >= 1);
    CHECK(*std::max_element(counts.begin(), counts.end()) >
          *std::min_element(counts.begin(), counts.end()));
  }
}

TEST_CASE("choose_experts: a token without an expert has weights of zero and no gradient",
          "[model][moe]") {
  for (const bool renormalise : {false, true}) {
    const auto probs = leaf_copy(at::full({3, 4}, 0.25, at::kDouble));
    const auto selection = choose(probs, RoutingPolicy::threshold(1.0), renormalise);
    CHECK_FALSE(selection.selected.any().item<bool>());
    CHECK(selection.expert_weights.abs().max().item<double>() == 0.0);
    selection.expert_weights.sum().backward();
    CHECK(probs.grad().abs().max().item<double>() == 0.0);
  }
}

TEST_CASE("choose_experts: the cap keeps the strongest above the threshold", "[model][moe]") {
  const auto probs = random_probs(46, 30, 8);
  const auto open = choose(probs, RoutingPolicy::threshold(0.5), false);
  const auto top = choose(probs, RoutingPolicy::top_k(3), false);
  const auto capped = choose(probs, RoutingPolicy::threshold(0.5, 3), false);
  CHECK(at::equal(capped.selected, open.selected.logical_and(top.selected)));
  const auto counts = counts_per_token(capped);
  CHECK(*std::max_element(counts.begin(), counts.end()) == 3);
  const auto loose = choose(probs, RoutingPolicy::threshold(0.5, 8), false);
  CHECK(at::equal(loose.selected, open.selected));
}

TEST_CASE("choose_experts: threshold_top_k takes the rounded mean count for every token",
          "[model][moe]") {
  // Times four: 2, 1.2, 0.4, 0.4 has two above 0.5; 3.4, 0.2, 0.2, 0.2 has one.
  const auto two = at::tensor({0.5, 0.3, 0.1, 0.1}, at::kDouble).view({1, 4});
  const auto one = at::tensor({0.85, 0.05, 0.05, 0.05}, at::kDouble).view({1, 4});
  const auto k_of = [](const at::Tensor& probs, double epsilon) {
    const auto counts =
        counts_per_token(choose(probs, RoutingPolicy::threshold_top_k(epsilon), false));
    CHECK(std::all_of(counts.begin(), counts.end(), [&](int64_t c) { return c == counts[0]; }));
    return counts[0];
  };
  CHECK(k_of(at::cat({two, one, one}, 0), 0.5) == 1);  // 4 / 3
  CHECK(k_of(at::cat({two, two, one}, 0), 0.5) == 2);  // 5 / 3
  CHECK(k_of(two, 0.5) == 2);
  CHECK(k_of(at::cat({two, one}, 0), 10.0) == 1);  // none above: at least one
  CHECK(k_of(at::cat({two, one}, 0), 0.0) == 4);   // all above
  const auto probs = random_probs(47, 50, 8);
  const auto open = counts_per_token(choose(probs, RoutingPolicy::threshold(0.7), false));
  const double mean = std::accumulate(open.begin(), open.end(), 0.0) / 50;
  const auto k = static_cast<int64_t>(std::lround(mean));
  const auto expected = choose(probs, RoutingPolicy::top_k(k), false);
  const auto selection = choose(probs, RoutingPolicy::threshold_top_k(0.7), false);
  CHECK(at::equal(selection.selected, expected.selected));
}

TEST_CASE("choose_experts: gradients reach the selected probabilities only", "[model][moe]") {
  for (const bool renormalise : {false, true}) {
    const auto probs = leaf_copy(random_probs(48, 6, 5));
    const auto upstream = RandomTensors(49).normal({6, 5});
    const auto policy = RoutingPolicy::top_k(2);
    const auto selection = choose(probs, policy, renormalise);
    selection.expert_weights.backward(upstream);
    const auto mask = selection.selected.to(at::kDouble);
    if (!renormalise) CHECK(at::equal(probs.grad(), upstream * mask));
    const auto x = probs.detach();
    const auto numeric = numeric_gradient(
        [&] {
          return (choose(x, policy, renormalise).expert_weights * upstream).sum().item<double>();
        },
        x);
    CHECK(max_difference(probs.grad(), numeric) < 1e-8);
    CHECK_FALSE(selection.selected.requires_grad());
  }
}

TEST_CASE("choose_experts: a top_k outside the layer and a wrong shape throw", "[model][moe]") {
  const auto probs = random_probs(50, 3, 4);
  CHECK_THROWS_AS(choose(probs, RoutingPolicy::top_k(0), false), c10::Error);
  CHECK_THROWS_AS(choose(probs, RoutingPolicy::top_k(5), false), c10::Error);
  CHECK_THROWS_AS(choose(probs.view({1, 3, 4}), RoutingPolicy::all(), false), c10::Error);
}

TEST_CASE("list_on_host: lists every selected pair once, by expert, then by token",
          "[model][moe]") {
  for (const auto& policy : kPolicies) {
    INFO(policy.to_string());
    const auto selection = choose(random_probs(51, 17, 6), policy, false);
    const auto dispatch = list_on_host(selection.selected, selection.expert_weights);
    REQUIRE(dispatch.offsets.size() == 7);
    std::vector<int64_t> tokens;
    std::vector<int64_t> experts;
    std::vector<double> weights;
    std::vector<int64_t> offsets{0};
    for (int64_t e = 0; e < 6; ++e) {
      for (int64_t t = 0; t < 17; ++t) {
        if (!selection.selected[t][e].item<bool>()) continue;
        tokens.push_back(t);
        experts.push_back(e);
        weights.push_back(selection.expert_weights[t][e].item<double>());
      }
      offsets.push_back(static_cast<int64_t>(tokens.size()));
    }
    CHECK(dispatch.offsets == offsets);
    CHECK(at::equal(dispatch.token_of_row, at::tensor(tokens, at::kLong)));
    CHECK(at::equal(dispatch.expert_of_row, at::tensor(experts, at::kLong)));
    CHECK(at::equal(dispatch.weight_of_row, at::tensor(weights, at::kDouble)));
    if (policy.selection == Selection::kTopK) CHECK(offsets.back() == 17 * policy.k);
  }
}

TEST_CASE("list_on_host: gradients pass through the weights of the rows", "[model][moe]") {
  const auto probs = leaf_copy(random_probs(52, 5, 4));
  const auto selection = choose(probs, RoutingPolicy::top_k(2), false);
  list_on_host(selection.selected, selection.expert_weights).weight_of_row.sum().backward();
  CHECK(at::equal(probs.grad(), selection.selected.to(at::kDouble)));
}

}  // namespace dsmoe
