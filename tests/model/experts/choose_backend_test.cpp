#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include <catch2/catch.hpp>

#include "model/experts/expert_ffn.h"
#include "model/module_testing.h"

namespace dsmoe {
namespace {

// Experts of 2 * d_model * width parameters, with a gate 3 * d_model * width.
ExpertFfn make_experts(int64_t n_experts,
                       int64_t width,
                       Activation activation = Activation::kGelu) {
  ExpertFfn ffn(64, n_experts, width, activation, Biases::kNone);
  randomise(*ffn, 7, 0.1);
  return ffn;
}

bool runs_sparse(const RoutingPolicy& policy,
                 int64_t n_experts,
                 int64_t width,
                 Activation activation = Activation::kGelu) {
  auto ffn = make_experts(n_experts, width, activation);
  return runs_sparse(ExpertPass{ffn->experts(), policy});
}

}  // namespace

TEST_CASE("choose_backend: on the CPU, by packed weights, gradient and execution",
          "[model][experts]") {
  auto ffn = make_experts(4, 8);
  const auto x = at::zeros({3, 64});
  const auto chosen = [&](const RoutingPolicy& policy, ExpertRole role = ExpertRole::kFfn) {
    return &choose_backend({ffn->experts(), policy, {}, role}, x);
  };
  const auto dense = RoutingPolicy::top_k(2).with(Execution::kDense);
  const auto sparse = RoutingPolicy::top_k(2).with(Execution::kSparse);
  CHECK(chosen(dense) == &dense_backend());
  CHECK(chosen(sparse) == &grouped_backend());
  CHECK(chosen(sparse, ExpertRole::kAttention) == &grouped_backend());
  CHECK(chosen({}) == &dense_backend());
  ffn->pack({.format = PackedFormat::kFloat32, .keep_original = true});
  CHECK(chosen(sparse) == &grouped_backend());  // gradients need the weights as they were
  const at::NoGradGuard no_grad;
  for (const auto& policy : {dense, sparse}) CHECK(chosen(policy) == &packed_cpu_backend());
}

TEST_CASE("choose_backend: every backend of the CPU gives the same output", "[model][experts]") {
  const at::NoGradGuard no_grad;
  auto ffn = make_experts(5, 6);
  const auto x = RandomTensors(8).normal({7, 64}, at::kFloat);
  const auto probs = RandomTensors(9).normal({7, 5}, at::kFloat).sigmoid();
  const auto policy = RoutingPolicy::top_k(2);
  const auto choice = choose_experts(probs, policy.rule(1.0));
  const auto expected = ffn->forward(x, choice, policy.with(Execution::kDense));
  const auto check = [&](Execution execution) {
    CHECK(max_difference(ffn->forward(x, choice, policy.with(execution)), expected) < 1e-5);
  };
  check(Execution::kSparse);
  ffn->pack({.format = PackedFormat::kFloat32});
  check(Execution::kDense);
  check(Execution::kSparse);
}

TEST_CASE("choose_backend: packed experts of a mixture require a choice", "[model][experts]") {
  const at::NoGradGuard no_grad;
  auto ffn = make_experts(2, 8);
  ffn->pack({.format = PackedFormat::kFloat32});
  CHECK_THROWS_AS(ffn->forward(at::ones({1, 64})), c10::Error);
}

TEST_CASE("runs_sparse: follows an explicit execution", "[model][experts]") {
  const auto policy = RoutingPolicy::top_k(2);
  CHECK(runs_sparse(policy.with(Execution::kSparse), 8, 1));
  CHECK_FALSE(runs_sparse(policy.with(Execution::kDense), 8, 8192));
  CHECK(runs_sparse(RoutingPolicy::all().with(Execution::kSparse), 8, 1));
}

TEST_CASE("runs_sparse: auto weighs the experts left out against the calls", "[model][experts]") {
  CHECK_FALSE(runs_sparse(RoutingPolicy::all(), 8, 8192));
  CHECK(runs_sparse(RoutingPolicy::top_k(4), 32, 512));  // 65,536 parameters an expert
  CHECK_FALSE(runs_sparse(RoutingPolicy::top_k(17), 32, 512));
  CHECK_FALSE(runs_sparse(RoutingPolicy::top_k(4), 16, 144));  // 18,432
  CHECK(runs_sparse(RoutingPolicy::threshold(0.5), 32, 512));
  CHECK_FALSE(runs_sparse(RoutingPolicy::top_k(4), 32, 256));                 // 32,768
  CHECK(runs_sparse(RoutingPolicy::top_k(4), 32, 256, Activation::kSwiglu));  // 49,152
}

}  // namespace dsmoe
