#include "eval/equivalence_check.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/randint.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <limits>

#include "model/named_tensors.h"
#include "support/tiny_model.h"

namespace dsmoe {
namespace {

CheckTokens some_tokens() { return {at::randint(257, {3, 20}, at::kLong)}; }

at::Tensor parameter_of(Transformer& model, const std::string& name) {
  for (const auto& [its_name, parameter] : named_parameters(*model)) {
    if (its_name == name) return parameter;
  }
  FAIL("no parameter " << name);
  return {};
}

const RoutingPlan kPlan = parse_routing_plan("moe:top_k=2;moa:threshold=0.8");

}  // namespace

TEST_CASE("check_equivalence: a sound model passes") {
  auto model = make_tiny_model();
  const auto report = check_equivalence(model, some_tokens(), kPlan);
  CHECK(report.passes());
  CHECK(report.max_abs_logit > 0.1);
  CHECK(report.max_abs_error > 0);  // two executions were compared, not one with itself
  REQUIRE(report.layers.size() == 2);
  for (const auto& layer : report.layers) {
    CHECK(layer.moe.duplicates.empty());
    CHECK(layer.moa.duplicates.empty());
    CHECK(layer.moe.dead == std::vector<int64_t>{});
    CHECK(layer.max_abs_error > 0);
  }
}

TEST_CASE("check_equivalence: agreement is the share of equal selections of bfloat16 products") {
  auto model = make_tiny_model();
  const auto tokens = at::randint(257, {16, 24}, at::kLong);
  const at::NoGradGuard no_grad;
  model->eval();
  const auto run = [&](at::ScalarType type) {
    return model->forward(tokens, kPlan.with(Execution::kDense), {.compute_dtype = type});
  };
  const auto wide = run(at::kFloat);
  const auto narrow = run(at::kBFloat16);
  std::vector<bool> equal;  // by layer, kind and token
  const auto compare = [&](const RoutingRecord& a, const RoutingRecord& b) {
    const auto selected = a.selected.flatten(0, 1);  // [n_tokens, n_experts]
    const auto other = b.selected.flatten(0, 1);
    for (int64_t i = 0; i < selected.size(0); ++i)
      equal.push_back(at::equal(selected[i], other[i]));
  };
  for (size_t layer = 0; layer < 2; ++layer) {
    compare(wide.moe[layer], narrow.moe[layer]);
    compare(wide.moa[layer], narrow.moa[layer]);
  }
  const auto n_equal = static_cast<double>(std::count(equal.begin(), equal.end(), true));
  const double share = n_equal / static_cast<double>(equal.size());
  REQUIRE(share < 1);
  CHECK(check_equivalence(model, {.ids = tokens}, kPlan).bfloat16_agreement == Approx(share));
}

TEST_CASE("check_equivalence: names weights that are not finite") {
  auto model = make_tiny_model();
  {
    const at::NoGradGuard no_grad;
    parameter_of(model, "blocks_1.ffn_norm.weight")[3].fill_(
        std::numeric_limits<float>::quiet_NaN());
  }
  const auto report = check_equivalence(model, some_tokens(), kPlan);
  CHECK(report.non_finite == std::vector<std::string>{"blocks_1.ffn_norm.weight"});
  CHECK_FALSE(report.passes());
}

TEST_CASE("check_equivalence: finds an expert that was copied and one that is never chosen") {
  auto model = make_tiny_model();
  {
    const at::NoGradGuard no_grad;
    auto up = parameter_of(model, "blocks_0.moe.experts.up_proj.weight").view({5, 3, 12});
    up[4].copy_(up[1]);
    auto router = parameter_of(model, "blocks_1.moa.router.out_proj.weight");
    router.zero_();
    // Of SwiGLU's hidden values none is the same for all tokens, so the dead one is made by size.
    router[2].fill_(1e4);
    router[0].fill_(-1e4);
  }
  const auto report = check_equivalence(model, some_tokens(), kPlan);
  const auto& duplicates = report.layers[0].moe.duplicates;
  REQUIRE(duplicates.size() == 1);
  CHECK(duplicates[0].first == 1);
  CHECK(duplicates[0].second == 4);
  CHECK(report.layers[1].moa.dead == std::vector<int64_t>{1});
  CHECK_FALSE(report.on_random_tokens);

  // The same tokens, were they random: duplicates are in the weights, dead experts are not judged.
  auto random = some_tokens();
  random.are_random = true;
  const auto unjudged = check_equivalence(model, random, kPlan);
  CHECK(unjudged.on_random_tokens);
  CHECK_FALSE(unjudged.layers[1].moa.dead);
  CHECK_FALSE(unjudged.layers[0].moe.dead);
  CHECK(unjudged.layers[0].moe.duplicates.size() == 1);
}

TEST_CASE("CheckReport: an error of one layer, or a NaN, fails") {
  CheckReport report;
  report.tolerance = 1e-5;
  report.layers.resize(2);
  CHECK(report.passes());
  report.layers[1].max_abs_error = 2e-5;
  CHECK_FALSE(report.passes());
  report.layers[1].max_abs_error = std::numeric_limits<double>::quiet_NaN();
  CHECK_FALSE(report.passes());
}

TEST_CASE("default_check_plan: leaves experts out; check_tokens: the beginning of a text") {
  auto config = tiny_model_config();
  const auto plan = default_check_plan(config);
  CHECK(plan.layer(0).moe == RoutingPolicy::top_k(2));
  CHECK(plan.layer(0).moa == RoutingPolicy::top_k(2));
  config.training_policy = "threshold=0.5";
  CHECK(default_check_plan(config).layer(1).moe == RoutingPolicy::threshold(0.5));

  EvalText text;
  text.sequences.emplace_back();
  for (int32_t i = 0; i < 4 * 24; ++i) text.sequences[0].push_back(i);
  const auto tokens = check_tokens(text, config, "a.txt");
  CHECK(tokens.ids.sizes() == at::IntArrayRef({4, 24}));
  CHECK(tokens.ids[3][23].item<int64_t>() == 95);
  CHECK_FALSE(tokens.are_random);
  text.sequences[0].pop_back();
  CHECK_THROWS_WITH(check_tokens(text, config, "a.txt"), "a.txt: expected 96 tokens, got 95");
  const auto random = random_check_tokens(config);
  CHECK(random.are_random);
  CHECK(random.ids.equal(random_check_tokens(config).ids));
}

}  // namespace dsmoe
