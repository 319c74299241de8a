#include "model/attention/moa_block.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "model/module_testing.h"

namespace dsmoe {
namespace {

struct Form {
  int64_t d_model;
  int64_t n_experts;
  int64_t heads_per_expert;
  int64_t head_dim;
  int64_t batch;
  int64_t seq;
  Biases biases;
  bool rotary;
};

const std::vector<Form> kForms = {{10, 3, 2, 4, 2, 5, Biases::kNone, true},
                                  {7, 2, 3, 6, 1, 9, Biases::kAll, true},
                                  {6, 5, 2, 3, 3, 4, Biases::kAll, false},
                                  {5, 1, 2, 2, 2, 3, Biases::kOutput, true},
                                  {5, 4, 1, 2, 2, 3, Biases::kAll, true},
                                  {4, 3, 2, 2, 1, 1, Biases::kNone, true}};

const std::vector<RoutingPolicy> kPolicies = {RoutingPolicy::all(),
                                              RoutingPolicy::top_k(1),
                                              RoutingPolicy::threshold(0.0),
                                              RoutingPolicy::threshold(0.8),
                                              RoutingPolicy::threshold(1.1, 1),
                                              RoutingPolicy::threshold(1.3),
                                              RoutingPolicy::threshold(50.0),
                                              RoutingPolicy::threshold_top_k(0.8)};

TokenChoice chosen(const at::Tensor& probs, const RoutingPolicy& policy, bool renormalise) {
  auto rule = policy.rule(static_cast<double>(probs.size(1)));
  rule.renormalise = renormalise;
  return choose_experts(probs, rule);
}

MoABlock make_block(const Form& form, uint64_t seed, bool renormalise = false) {
  AttentionConfig config;
  config.head_dim = form.head_dim;
  config.n_experts = form.n_experts;
  config.heads_per_expert = form.heads_per_expert;
  config.router.kind = RouterKind::kLinear;
  config.router.renormalise = renormalise;
  MoABlock block(form.d_model, config, form.biases);
  randomise(*block, seed, 0.6);
  block->to(at::kDouble);
  return block;
}

at::Tensor input(const Form& form, uint64_t seed) {
  return RandomTensors(seed).normal({form.batch, form.seq, form.d_model});
}

AttentionContext context_of(const Form& form) {
  AttentionContext context;
  context.positions = at::arange(form.seq, at::kLong).expand({form.batch, form.seq});
  if (form.rotary) {
    context.rotary =
        rotary_tables(context.positions, rotary_frequencies(form.head_dim, 10000.0), at::kDouble);
  }
  return context;
}

/// Rotates pair (d, d + head_dim / 2) of x [seq, head_dim] by position * 10000^(-2 d / head_dim).
at::Tensor rotate_head(const at::Tensor& x) {
  const int64_t half = x.size(1) / 2;
  std::vector<at::Tensor> columns(static_cast<size_t>(2 * half));
  const auto position = at::arange(x.size(0), at::kDouble);
  for (int64_t d = 0; d < half; ++d) {
    const auto angle = position * std::pow(10000.0, -2.0 * static_cast<double>(d) / (2.0 * half));
    const auto a = x.select(1, d);
    const auto b = x.select(1, d + half);
    columns[d] = a * angle.cos() - b * angle.sin();
    columns[d + half] = b * angle.cos() + a * angle.sin();
  }
  return at::stack(columns, 1);
}

/// Plain causal attention of one head, row by row; q, k, v [seq, head_dim].
at::Tensor one_head(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  std::vector<at::Tensor> rows;
  for (int64_t t = 0; t < q.size(0); ++t) {
    const auto scores =
        at::matmul(k.narrow(0, 0, t + 1), q[t]) / std::sqrt(static_cast<double>(q.size(1)));
    rows.push_back(at::matmul(at::softmax(scores, 0), v.narrow(0, 0, t + 1)));
  }
  return at::stack(rows, 0);
}

enum class WeightPlace { kAfterOutput, kBeforeOutput };

/// The block written as loops over sequences, experts and heads; equations 7 and 8.
/// kv_head(expert, head) names the key/value head that a query head reads.
at::Tensor expert_loop(const MoABlock& block,
                       const Form& form,
                       const at::Tensor& x,
                       const at::Tensor& weights,  // [batch * seq, n_experts]
                       const std::function<int64_t(int64_t, int64_t)>& kv_head,
                       WeightPlace place = WeightPlace::kAfterOutput) {
  const auto named = block->named_parameters();
  const int64_t d = form.head_dim;
  const auto project = [&](const std::string& name, const at::Tensor& row, int64_t head) {
    const auto y = row.matmul(named[name + ".weight"].narrow(0, head * d, d).t());
    return form.biases == Biases::kAll ? y + named[name + ".bias"].narrow(0, head * d, d) : y;
  };
  const auto rotated = [&](const at::Tensor& y) { return form.rotary ? rotate_head(y) : y; };
  std::vector<at::Tensor> outputs;
  for (int64_t b = 0; b < form.batch; ++b) {
    auto sum = at::zeros({form.seq, form.d_model}, x.options());
    for (int64_t i = 0; i < form.n_experts; ++i) {
      const auto weight = weights.narrow(0, b * form.seq, form.seq).narrow(1, i, 1);
      for (int64_t j = 0; j < form.heads_per_expert; ++j) {
        const int64_t head = i * form.heads_per_expert + j;
        const int64_t kv = kv_head(i, j);
        auto y = one_head(rotated(project("q_proj", x[b], head)),
                          rotated(project("k_proj", x[b], kv)),
                          project("v_proj", x[b], kv));
        if (place == WeightPlace::kBeforeOutput) y = y * weight;
        y = y.matmul(named["o_proj.weight"].narrow(1, head * d, d).t());
        sum = sum + (place == WeightPlace::kAfterOutput ? y * weight : y);
      }
    }
    outputs.push_back(form.biases != Biases::kNone ? sum + named["o_proj.bias"] : sum);
  }
  return at::stack(outputs, 0);
}

int64_t own_head(int64_t /*expert*/, int64_t head) { return head; }

}  // namespace

TEST_CASE("MoABlock: equals a per-expert loop where head j reads key/value head j",
          "[model][moa]") {
  for (const auto& form : kForms) {
    for (const auto& policy : kPolicies) {
      for (const bool renormalise : {false, true}) {
        INFO(policy.to_string() << " n_experts " << form.n_experts << " d_model " << form.d_model);
        auto block = make_block(form, 121, renormalise);
        const auto x = input(form, 122);
        const auto probs = block->router(x).router_probs;
        const auto selection = chosen(probs.flatten(0, 1), policy, renormalise);
        const auto expected = expert_loop(block, form, x, selection.expert_weights, own_head);
        for (const auto execution : {Execution::kDense, Execution::kSparse, Execution::kAuto}) {
          const auto out = block(x, context_of(form), 0, policy.with(execution));
          CHECK(max_difference(out.y, expected) < 1e-12);
          CHECK(at::equal(out.routing.router_probs, probs));
          CHECK(at::equal(out.routing.selected.flatten(0, 1), selection.selected));
        }
      }
    }
  }
}

TEST_CASE("MoABlock: another assignment of query to key/value heads gives another result",
          "[model][moa]") {
  // Guards the test above: with interleave and tile swapped the difference must show.
  for (const auto& form : {kForms[0], kForms[1], kForms[2]}) {
    REQUIRE(form.n_experts > 1);
    REQUIRE(form.heads_per_expert > 1);
    REQUIRE(form.n_experts != form.heads_per_expert);
    auto block = make_block(form, 123);
    const auto x = input(form, 124);
    const auto weights = block->router(x).router_probs.flatten(0, 1);
    const auto swapped = [&](int64_t expert, int64_t head) {
      return (expert * form.heads_per_expert + head) / form.n_experts;
    };
    const auto wrong = expert_loop(block, form, x, weights, swapped);
    for (const auto execution : {Execution::kDense, Execution::kSparse}) {
      const auto y = block(x, context_of(form), 0, RoutingPolicy::all().with(execution)).y;
      CHECK(max_difference(y, wrong) > 1e-2);
    }
  }
}

TEST_CASE("MoABlock: the expert-major and the key-major layout are one permutation apart",
          "[model][moa]") {
  // Query head i * n_kv + j of ours is head j * n_experts + i of ordinary grouped-query attention.
  const auto& form = kForms[0];
  const int64_t n_kv = form.heads_per_expert;
  auto block = make_block(form, 125);
  const auto x = input(form, 126);
  AttentionConfig config;
  config.kind = AttentionKind::kDense;
  config.head_dim = form.head_dim;
  config.n_heads = form.n_experts * n_kv;
  config.n_kv_heads = n_kv;
  CausalAttention grouped(form.d_model, config, form.biases);
  grouped->to(at::kDouble);
  std::vector<int64_t> rows;
  for (int64_t j = 0; j < n_kv; ++j) {
    for (int64_t i = 0; i < form.n_experts; ++i) {
      for (int64_t d = 0; d < form.head_dim; ++d)
        rows.push_back((i * n_kv + j) * form.head_dim + d);
    }
  }
  const auto order = at::tensor(rows, at::kLong);
  const at::NoGradGuard no_grad;
  auto target = grouped->named_parameters();
  target["q_proj.weight"].copy_(parameter(*block, "q_proj.weight").index_select(0, order));
  target["k_proj.weight"].copy_(parameter(*block, "k_proj.weight"));
  target["v_proj.weight"].copy_(parameter(*block, "v_proj.weight"));
  target["o_proj.weight"].copy_(parameter(*block, "o_proj.weight").index_select(1, order));
  for (auto& p : block->router->parameters()) p.zero_();  // every weight 1 / n_experts
  const auto mixed = block(x, context_of(form), 0, RoutingPolicy::all()).y;
  const auto plain = grouped(x, context_of(form), 0);
  CHECK(max_difference(mixed * static_cast<double>(form.n_experts), plain) < 1e-12);
}

TEST_CASE("MoABlock: weighting before or after the output projection is the same", "[model][moa]") {
  for (const auto& form : kForms) {
    auto block = make_block(form, 127);
    const auto x = input(form, 128);
    const auto weights = block->router(x).router_probs.flatten(0, 1);
    const auto after = expert_loop(block, form, x, weights, own_head, WeightPlace::kAfterOutput);
    const auto before = expert_loop(block, form, x, weights, own_head, WeightPlace::kBeforeOutput);
    CHECK(max_difference(after, before) < 1e-12);
  }
}

TEST_CASE("MoABlock: all gradients equal those of the loop, dense and sparse", "[model][moa]") {
  for (const auto& form : {kForms[0], kForms[1], kForms[2]}) {
    for (const auto& policy : kPolicies) {
      for (const auto execution : {Execution::kDense, Execution::kSparse}) {
        INFO(policy.to_string() << " sparse " << (execution == Execution::kSparse));
        auto block = make_block(form, 129);
        auto reference = make_block(form, 129);
        const auto x = leaf_copy(input(form, 130));
        const auto x_reference = leaf_copy(x);
        const auto upstream = RandomTensors(131).normal(x.sizes());
        block(x, context_of(form), 0, policy.with(execution)).y.backward(upstream);
        const auto probs = reference->router(x_reference).router_probs.flatten(0, 1);
        const auto weights = chosen(probs, policy, false).expert_weights;
        expert_loop(reference, form, x_reference, weights, own_head).backward(upstream);
        CHECK(max_difference(x.grad(), x_reference.grad()) < 1e-11);
        CHECK(max_gradient_difference(*block, *reference) < 1e-11);
      }
    }
  }
}

TEST_CASE("MoABlock: the cache has the same shape and content under every policy", "[model][moa]") {
  const auto& form = kForms[0];
  const at::NoGradGuard no_grad;
  const auto x = input(form, 132);
  at::Tensor first_keys;
  at::Tensor first_values;
  for (const auto& policy : kPolicies) {
    for (const auto execution : {Execution::kDense, Execution::kSparse}) {
      auto block = make_block(form, 133);
      KvCache cache({1, form.heads_per_expert, form.head_dim, at::kDouble}, form.batch, 8);
      cache.begin_pass(form.seq);
      auto context = context_of(form);
      context.cache = &cache;
      block(x, context, 0, policy.with(execution));
      cache.advance(form.seq);
      // An empty append reads what is stored.
      const auto nothing =
          at::zeros({form.batch, form.heads_per_expert, 0, form.head_dim}, at::kDouble);
      const auto [keys, values] = cache.append(0, nothing, nothing);
      REQUIRE(keys.sizes() ==
              at::IntArrayRef({form.batch, form.heads_per_expert, form.seq, form.head_dim}));
      if (!first_keys.defined()) {
        first_keys = keys.clone();
        first_values = values.clone();
      }
      CHECK(at::equal(keys, first_keys));
      CHECK(at::equal(values, first_values));
    }
  }
}

}  // namespace dsmoe
