#include "csrc_kernels/token_choice/token_choice.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <catch2/catch.hpp>
#include <limits>
#include <vector>

#include "csrc_kernels/random_tensors.h"
#include "csrc_kernels/router/router_probs.h"

namespace dsmoe {
namespace {

void check_equal(const TokenChoice& choice, const TokenChoice& expected) {
  CHECK(at::equal(choice.selected, expected.selected));
  CHECK(max_difference(choice.expert_weights, expected.expert_weights) < 1e-6);
  CHECK(choice.most_per_token == expected.most_per_token);
}

// The CPU's kernel.
TokenChoice choose(const at::Tensor& probs, const RoutingRule& rule) {
  return choose_experts(probs, rule, /*packed=*/true);
}

const float kNan = std::numeric_limits<float>::quiet_NaN();

}  // namespace

TEST_CASE("choose_experts: equals its reference for every rule", "[kernels][moe]") {
  RandomTensors random(41);
  for (const int64_t n_tokens : {0, 1, 2, 19}) {
    for (const int64_t n_experts : {1, 3, 32}) {
      const auto probs = at::softmax(random.normal({n_tokens, n_experts}, at::kFloat), 1);
      const auto scale = static_cast<double>(n_experts);
      for (const bool extra : {false, true}) {
        for (const auto empty : {ZeroActive::kZero, ZeroActive::kArgmax, ZeroActive::kAll}) {
          RoutingRule rule{.threshold_scale = scale, .zero_active = empty};
          rule.renormalise = extra;
          rule.count_scale = !extra;
          const auto check = [&] {
            INFO(n_tokens << " tokens, " << n_experts << " experts, kind "
                          << static_cast<int>(rule.selection) << ", extra " << extra);
            check_equal(choose(probs, rule), choose_experts_ref(probs, rule));
          };
          check();
          rule.selection = Selection::kTopK;
          rule.k = std::min<int64_t>(2, n_experts);
          check();
          for (const double epsilon : {0.0, 0.9, 1.7, 40.0}) {
            rule.selection = Selection::kThreshold;
            rule.epsilon = epsilon;
            rule.max_experts = 0;
            check();
            rule.max_experts = std::min<int64_t>(2, n_experts);
            check();
            rule.selection = Selection::kThresholdTopK;
            if (n_tokens > 0) check();
          }
        }
      }
    }
  }
}

TEST_CASE("choose_experts: worked values", "[kernels][moe]") {
  const auto probs = at::tensor({0.5F, 0.1F, 0.4F, 0.2F, 0.2F, 0.6F}).view({2, 3});
  auto choice = choose(probs, {.selection = Selection::kTopK, .k = 2, .renormalise = true});
  // Experts 0 and 2 for the first token; 2 and, among equals, 0 for the second.
  CHECK(max_difference(
            choice.expert_weights,
            at::tensor({0.5F / 0.9F, 0.0F, 0.4F / 0.9F, 0.25F, 0.0F, 0.75F}).view({2, 3})) < 1e-6);
  CHECK(choice.most_per_token == 2);
  choice =
      choose(probs, {.selection = Selection::kThreshold, .epsilon = 0.45, .count_scale = true});
  CHECK(max_difference(choice.expert_weights,
                       at::tensor({1.5F, 0.0F, 0.0F, 0.0F, 0.0F, 1.8F}).view({2, 3})) < 1e-6);
  CHECK(choice.most_per_token == 0);
}

TEST_CASE("choose_experts: a token's choice does not depend on the others", "[kernels][moe]") {
  RandomTensors random(43);
  const auto probs = at::softmax(random.normal({30, 16}, at::kFloat), 1);
  const RoutingRule rules[] = {{.selection = Selection::kTopK, .k = 4, .renormalise = true},
                               {.selection = Selection::kThreshold, .epsilon = 0.06}};
  for (const auto& rule : rules) {
    const auto whole = choose(probs, rule);
    for (int64_t token = 0; token < 30; ++token) {
      const auto alone = choose(probs.narrow(0, token, 1).contiguous(), rule);
      CHECK(at::equal(alone.selected[0], whole.selected[token]));
      CHECK(at::equal(alone.expert_weights[0], whole.expert_weights[token]));
    }
  }
}

TEST_CASE("choose_experts: numbers that are none still give k experts", "[kernels][moe]") {
  const auto probs = at::tensor({kNan, 0.3F, 0.7F, kNan, kNan, kNan}).view({2, 3});
  const auto choice = choose(probs, {.selection = Selection::kTopK, .k = 2});
  CHECK(choice.selected.sum(1).eq(2).all().item<bool>());
  CHECK(choose(probs, {.selection = Selection::kThreshold, .epsilon = 0.5})
            .selected.sum()
            .item<int64_t>() == 1);
}

TEST_CASE("router_probs: softmax and sigmoid, a row's bits being its own", "[kernels][moe]") {
  RandomTensors random(47);
  for (const int64_t n_experts : {1, 5, 32}) {
    const auto logits = random.normal({19, n_experts}, at::kFloat) * 5.0;
    CHECK(max_difference(router_probs(logits, false), at::softmax(logits, 1)) < 1e-6);
    CHECK(max_difference(router_probs(logits, true), at::sigmoid(logits)) < 1e-6);
    for (const bool sigmoid : {false, true}) {
      const auto whole = router_probs(logits, sigmoid);
      for (int64_t row = 0; row < 19; ++row) {
        CHECK(at::equal(router_probs(logits.narrow(0, row, 1), sigmoid)[0], whole[row]));
      }
    }
  }
  CHECK_THROWS_AS(router_probs(at::zeros({3}), false), c10::Error);
}

TEST_CASE("choose_experts: wrong arguments throw", "[kernels][moe]") {
  const auto probs = at::zeros({2, 3}, at::kFloat);
  CHECK_THROWS_AS(choose(probs, {.selection = Selection::kTopK, .k = 4}), c10::Error);
  CHECK_THROWS_AS(choose(probs, {.selection = Selection::kTopK, .k = 0}), c10::Error);
  CHECK_THROWS_AS(choose(probs.to(at::kDouble), {.renormalise = true}), c10::Error);
  CHECK_THROWS_AS(choose(probs.t(), {.renormalise = true}), c10::Error);
}

}  // namespace dsmoe
