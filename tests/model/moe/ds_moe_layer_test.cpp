#include "model/moe/ds_moe_layer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/gelu.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/sigmoid.h>
#include <ATen/ops/square.h>
#include <ATen/ops/zeros.h>
#include <c10/util/Exception.h>

#include <catch2/catch.hpp>
#include <vector>

#include "model/module_testing.h"
#include "support/product_count.h"

namespace dsmoe {
namespace {

struct Form {
  int64_t d_model;
  int64_t n_experts;
  int64_t d_expert;
  int64_t n_tokens;
  Activation activation;
  Biases biases;
};

const std::vector<Form> kForms = {{8, 4, 6, 6, Activation::kGeluTanh, Biases::kNone},
                                  {7, 5, 3, 9, Activation::kGelu, Biases::kAll},
                                  {5, 3, 1, 1, Activation::kSwiglu, Biases::kAll},
                                  {6, 1, 5, 4, Activation::kGeluTanh, Biases::kAll},
                                  {9, 7, 5, 13, Activation::kSwiglu, Biases::kNone},
                                  {7, 3, 4, 5, Activation::kSilu, Biases::kOutput},
                                  {6, 2, 3, 7, Activation::kQuickGelu, Biases::kAll},
                                  {5, 4, 2, 6, Activation::kReluSquared, Biases::kNone}};

const std::vector<RoutingPolicy> kPolicies = {RoutingPolicy::all(),
                                              RoutingPolicy::top_k(1),
                                              RoutingPolicy::threshold(0.0),
                                              RoutingPolicy::threshold(0.8),
                                              RoutingPolicy::threshold(0.8, 1),
                                              RoutingPolicy::threshold(1.3),
                                              RoutingPolicy::threshold(50.0),
                                              RoutingPolicy::threshold_top_k(0.8)};

DSMoELayer make_layer(const Form& form, uint64_t seed, bool renormalise = false) {
  FfnConfig config;
  config.activation = form.activation;
  config.n_experts = form.n_experts;
  config.d_expert = form.d_expert;
  config.router = {.kind = RouterKind::kSwiglu, .d_hidden = 5, .renormalise = renormalise};
  DSMoELayer layer(form.d_model, config, form.biases);
  randomise(*layer, seed, 0.7);
  layer->to(at::kDouble);
  return layer;
}

at::Tensor input(const Form& form, uint64_t seed) {
  return RandomTensors(seed).normal({1, form.n_tokens, form.d_model});
}

/// The layer's experts under given weights; those of weight 0 are not selected.
at::Tensor run(DSMoELayer& layer,
               const at::Tensor& x,
               const at::Tensor& weights,
               Execution execution) {
  return layer->experts->forward(
      x, {weights.detach().ne(0), weights}, RoutingPolicy::all().with(execution));
}

/// One expert's output before its weight, without the output bias; [n_tokens, d_model].
at::Tensor expert_output(const DSMoELayer& layer,
                         const Form& form,
                         const at::Tensor& x,
                         int64_t i) {
  const auto named = layer->named_parameters();
  const auto block = [&](const std::string& name) {
    return named["experts." + name].narrow(0, i * form.d_expert, form.d_expert);
  };
  const auto project = [&](const std::string& name) {
    const auto y = x.matmul(block(name + ".weight").t());
    return form.biases == Biases::kAll ? y + block(name + ".bias") : y;
  };
  auto hidden = project("up_proj");
  if (form.activation == Activation::kGelu) hidden = at::gelu(hidden);
  if (form.activation == Activation::kGeluTanh) hidden = at::gelu(hidden, "tanh");
  if (form.activation == Activation::kSilu) hidden = hidden * at::sigmoid(hidden);
  if (form.activation == Activation::kQuickGelu) hidden = hidden * at::sigmoid(1.702 * hidden);
  if (form.activation == Activation::kReluSquared) hidden = at::clamp_min(hidden, 0).square();
  if (form.activation == Activation::kSwiglu) {
    const auto gate = project("gate_proj");
    hidden = gate * at::sigmoid(gate) * hidden;
  }
  const auto down = named["experts.down_proj.weight"].narrow(1, i * form.d_expert, form.d_expert);
  return hidden.matmul(down.t());
}

/// sum_i weights_i e_i(x) + output bias, expert by expert; arXiv:2404.05567, section 3.2.
at::Tensor expert_loop(const DSMoELayer& layer,
                       const Form& form,
                       const at::Tensor& x,
                       const at::Tensor& weights) {
  auto sum = at::zeros({x.size(0), form.d_model}, x.options());
  for (int64_t i = 0; i < form.n_experts; ++i) {
    sum = sum + weights.narrow(1, i, 1) * expert_output(layer, form, x, i);
  }
  return form.biases != Biases::kNone ? sum + layer->named_parameters()["experts.down_proj.bias"]
                                      : sum;
}

}  // namespace

TEST_CASE("DSMoELayer: dense forward and all gradients equal the per-expert loop", "[model][moe]") {
  for (const auto& form : kForms) {
    INFO("d_model " << form.d_model << " n_experts " << form.n_experts);
    auto layer = make_layer(form, 81);
    auto reference = make_layer(form, 81);
    const auto x = leaf_copy(input(form, 82));
    const auto x_reference = leaf_copy(x);
    const auto upstream = RandomTensors(83).normal(x.sizes());
    const auto y = layer(x, RoutingPolicy::all()).y;
    const auto probs = reference->router(x_reference).router_probs[0];
    const auto y_reference = expert_loop(reference, form, x_reference[0], probs).unsqueeze(0);
    CHECK(max_difference(y, y_reference) < 1e-12);
    y.backward(upstream);
    y_reference.backward(upstream);
    CHECK(max_difference(x.grad(), x_reference.grad()) < 1e-12);
    CHECK(max_gradient_difference(*layer, *reference) < 1e-12);
  }
}

TEST_CASE("DSMoELayer: every selection, dense and sparse, equals the loop over its weights",
          "[model][moe]") {
  for (const auto& form : kForms) {
    for (const auto& policy : kPolicies) {
      for (const bool renormalise : {false, true}) {
        INFO(policy.to_string() << " n_experts " << form.n_experts << " " << renormalise);
        auto layer = make_layer(form, 84, renormalise);
        const auto x = input(form, 85);
        const auto probs = layer->router(x).router_probs;
        auto rule = policy.rule(static_cast<double>(form.n_experts));
        rule.renormalise = renormalise;
        const auto selection = choose_experts(probs[0], rule);
        const auto expected = expert_loop(layer, form, x[0], selection.expert_weights).unsqueeze(0);
        for (const auto execution : {Execution::kDense, Execution::kSparse, Execution::kAuto}) {
          const auto out = layer(x, policy.with(execution));
          CHECK(max_difference(out.y, expected) < 1e-12);
          CHECK(at::equal(out.routing.selected[0], selection.selected));
          CHECK(at::equal(out.routing.router_probs, probs));
        }
      }
    }
  }
}

TEST_CASE("DSMoELayer: sparse gradients equal those of the masked dense run", "[model][moe]") {
  for (const auto& form : kForms) {
    for (const auto& policy : kPolicies) {
      INFO(policy.to_string() << " n_experts " << form.n_experts);
      auto sparse = make_layer(form, 86);
      auto dense = make_layer(form, 86);
      const auto x = leaf_copy(input(form, 87));
      const auto x_dense = leaf_copy(x);
      const auto upstream = RandomTensors(88).normal(x.sizes());
      sparse(x, policy.with(Execution::kSparse)).y.backward(upstream);
      dense(x_dense, policy.with(Execution::kDense)).y.backward(upstream);
      CHECK(max_difference(x.grad(), x_dense.grad()) < 1e-12);
      CHECK(max_gradient_difference(*sparse, *dense) < 1e-12);
    }
  }
}

TEST_CASE("ExpertFfn: the weight's gradient is <e_i, upstream>, that of e_i is weight * upstream",
          "[model][moe]") {
  for (const auto& form : kForms) {
    auto layer = make_layer(form, 89);
    const auto x = input(form, 90)[0];
    const auto weights = RandomTensors(91).leaf({form.n_tokens, form.n_experts});
    const auto upstream = RandomTensors(92).normal({form.n_tokens, form.d_model});
    run(layer, x, weights, Execution::kDense).backward(upstream);
    for (int64_t i = 0; i < form.n_experts; ++i) {
      const auto by_hand = (expert_output(layer, form, x, i).detach() * upstream).sum(1);
      CHECK(max_difference(weights.grad().select(1, i), by_hand) < 1e-12);
    }
    // Through e_i = down_i h_i: the gradient of down_i is (weight_i * upstream)^T h_i.
    auto reference = make_layer(form, 89);
    at::Tensor through_experts = at::zeros({}, at::kDouble);
    for (int64_t i = 0; i < form.n_experts; ++i) {
      const auto upstream_of_expert = weights.detach().narrow(1, i, 1) * upstream;
      through_experts =
          through_experts + (expert_output(reference, form, x, i) * upstream_of_expert).sum();
    }
    through_experts.backward();
    for (const auto* name : {"up_proj.weight", "down_proj.weight"}) {
      CHECK(max_difference(layer->experts->named_parameters()[name].grad(),
                           reference->experts->named_parameters()[name].grad()) < 1e-12);
    }
  }
}

TEST_CASE("DSMoELayer: gradients of a tiny layer equal finite differences", "[model][moe]") {
  const Form form{3, 3, 2, 2, Activation::kGeluTanh, Biases::kAll};
  for (const auto execution : {Execution::kDense, Execution::kSparse}) {
    auto layer = make_layer(form, 93);
    const auto x = leaf_copy(input(form, 94));
    const auto upstream = RandomTensors(95).normal(x.sizes());
    const auto policy = RoutingPolicy::top_k(2).with(execution);
    const auto loss = [&] { return (layer(x.detach(), policy).y * upstream).sum().item<double>(); };
    layer(x, policy).y.backward(upstream);
    CHECK(max_difference(x.grad(), numeric_gradient(loss, x.detach())) < 1e-8);
    for (auto& item : layer->named_parameters()) {
      INFO(item.key());
      CHECK(max_difference(item.value().grad(), numeric_gradient(loss, item.value().detach())) <
            1e-8);
    }
  }
}

TEST_CASE("DSMoELayer: dense training gives every expert a gradient", "[model][moe]") {
  const auto& form = kForms[4];
  auto layer = make_layer(form, 96);
  layer(input(form, 97), RoutingPolicy::all()).y.sum().backward();
  const auto named = layer->experts->named_parameters();
  for (const auto& block : named["up_proj.weight"].grad().chunk(form.n_experts, 0)) {
    CHECK(block.abs().max().item<double>() > 0);
  }
  for (const auto& block : named["down_proj.weight"].grad().chunk(form.n_experts, 1)) {
    CHECK(block.abs().max().item<double>() > 0);
  }
}

TEST_CASE("ExpertFfn: the output bias is not scaled by a weight", "[model][moe]") {
  const auto& form = kForms[1];
  auto layer = make_layer(form, 98);
  const auto x = input(form, 99)[0];
  const auto bias =
      parameter(*layer, "experts.down_proj.bias").expand({form.n_tokens, form.d_model});
  const auto none = at::zeros({form.n_tokens, form.n_experts}, at::kDouble);
  CHECK(max_difference(run(layer, x, none, Execution::kDense), bias) < 1e-14);
  CHECK(max_difference(run(layer, x, none, Execution::kSparse), bias) < 1e-14);
  // Twice the weights: twice the experts' part, the same bias.
  const auto weights = RandomTensors(100).normal({form.n_tokens, form.n_experts});
  const auto once = run(layer, x, weights, Execution::kDense) - bias;
  const auto twice = run(layer, x, weights * 2.0, Execution::kDense) - bias;
  CHECK(max_difference(twice, once * 2.0) < 1e-12);
}

TEST_CASE("DSMoELayer: identical experts give that one expert's output", "[model][moe]") {
  for (const auto& form : kForms) {
    auto layer = make_layer(form, 101);
    {
      const at::NoGradGuard no_grad;
      for (auto& item : layer->experts->named_parameters()) {
        if (item.key() == "down_proj.bias") continue;
        const int64_t dim = item.key() == "down_proj.weight" ? 1 : 0;
        const auto blocks = item.value().chunk(form.n_experts, dim);
        for (size_t i = 1; i < blocks.size(); ++i) at::Tensor(blocks[i]).copy_(blocks[0].clone());
      }
    }
    const auto x = input(form, 102);
    auto expected = expert_output(layer, form, x[0], form.n_experts - 1);
    if (form.biases != Biases::kNone)
      expected = expected + parameter(*layer, "experts.down_proj.bias");
    CHECK(max_difference(layer(x, RoutingPolicy::all()).y[0], expected) < 1e-12);
  }
}

TEST_CASE("DSMoELayer: a uniform router gives the mean of the experts", "[model][moe]") {
  const auto& form = kForms[4];
  auto layer = make_layer(form, 103);
  {
    const at::NoGradGuard no_grad;
    for (auto& p : layer->router->parameters()) p.zero_();
  }
  const auto x = input(form, 104);
  auto mean = at::zeros({form.n_tokens, form.d_model}, at::kDouble);
  for (int64_t i = 0; i < form.n_experts; ++i) {
    mean = mean + expert_output(layer, form, x[0], i) / static_cast<double>(form.n_experts);
  }
  CHECK(max_difference(layer(x, RoutingPolicy::all()).y[0], mean) < 1e-12);
}

TEST_CASE("ExpertFfn: with all weights one it is the plain wide FFN", "[model][moe]") {
  for (const auto& form : kForms) {
    auto layer = make_layer(form, 105);
    const auto x = input(form, 106)[0];
    const auto ones = at::ones({form.n_tokens, form.n_experts}, at::kDouble);
    const auto expected = layer->experts->forward(x);
    CHECK(max_difference(run(layer, x, ones, Execution::kDense), expected) < 1e-13);
    CHECK(max_difference(run(layer, x, ones, Execution::kSparse), expected) < 1e-12);
  }
}

TEST_CASE("DSMoELayer: bfloat16 computing stays near float32 in both executions", "[model][moe]") {
  const Form form{16, 6, 8, 20, Activation::kGeluTanh, Biases::kAll};
  auto layer = make_layer(form, 107);
  {
    const at::NoGradGuard no_grad;
    for (auto& p : layer->experts->parameters()) p.mul_(0.3);
  }
  layer->to(at::kFloat);
  const auto narrow = input(form, 108).to(at::kBFloat16);
  const auto x = narrow.to(at::kFloat);
  for (const auto& policy : {RoutingPolicy::all(), RoutingPolicy::top_k(2)}) {
    const auto expected = layer(x, policy.with(Execution::kDense)).y;
    for (const auto execution : {Execution::kDense, Execution::kSparse}) {
      const auto out = layer(narrow, policy.with(execution));
      CHECK(out.y.scalar_type() == at::kBFloat16);
      CHECK(out.routing.router_probs.scalar_type() == at::kFloat);
      CHECK(max_difference(out.y.to(at::kFloat), expected) < 2e-2);
    }
  }
}

TEST_CASE("DSMoELayer: a wrong width throws", "[model][moe]") {
  auto layer = make_layer(kForms[0], 109);
  CHECK_THROWS_AS(layer(at::zeros({1, 3, 9}, at::kDouble), RoutingPolicy::all()), c10::Error);
}

TEST_CASE(
    "DSMoELayer: sparse execution multiplies only selected pairs, rows rounded up to a quarter",
    "[model][moe]") {
  const at::NoGradGuard no_grad;
  FfnConfig config;
  config.n_experts = 32;
  config.d_expert = 64;
  config.router.kind = RouterKind::kLinear;
  DSMoELayer layer(512, config, Biases::kNone);
  randomise(*layer, 3, 0.05);
  for (auto& parameter : layer->parameters()) parameter.set_data(parameter.to(at::kFloat));
  const auto x = RandomTensors(4).normal({1, 512, 512}).to(at::kFloat);
  const auto operations = [&](const RoutingPolicy& policy) {
    const ProductCount count;
    layer(x, policy);
    return count.operations();
  };
  const double all = 2.0 * 512 * 512 * (2 * 32 * 64);  // tokens, d_model, both matrices
  const auto policy = RoutingPolicy::top_k(4);
  const double router = operations(policy.with(Execution::kDense)) - all;
  CHECK(router >= 0);
  CHECK(router < 0.02 * all);
  const double sparse = operations(policy.with(Execution::kSparse)) - router;
  CHECK(sparse >= all * 4 / 32);
  CHECK(sparse <= 1.25 * all * 4 / 32);
}

}  // namespace dsmoe
