// Perplexity and likelihoods by a model on another device than the CPU, one that computes there.
#include <catch2/catch.hpp>

#include "eval/likelihood.h"
#include "eval/perplexity.h"
#include "support/fake_device.h"
#include "support/tiny_model.h"

namespace dsmoe {
namespace {

Transformer model_on(at::Device device) {
  auto model = make_tiny_model();
  model->to(device);
  return model;
}

const RoutingPlan kPlan = parse_routing_plan("moe:top_k=2;moa:all");

TEST_CASE("perplexity: a model on another device scores as on the CPU", "[eval][device]") {
  EvalText text;
  for (const int64_t length : {30, 9}) {
    auto& sequence = text.sequences.emplace_back();
    for (int64_t i = 0; i < length; ++i) {
      sequence.push_back(i == 0 ? 256 : static_cast<int32_t>(i * i % 251));
    }
    text.n_bytes += length;
  }
  text.unscored_id = 256;
  PerplexityOptions options;
  options.window = 12;
  options.batch = 3;
  options.plan = kPlan;
  auto on_cpu = model_on(at::kCPU);
  auto on_device = model_on(fake_device());
  const auto expected = evaluate_perplexity(on_cpu, text, options);
  const auto result = evaluate_perplexity(on_device, text, options);
  REQUIRE(expected.tokens_scored > 30);
  CHECK(result.tokens_scored == expected.tokens_scored);
  CHECK(result.nats_total == Approx(expected.nats_total).epsilon(1e-5));
  CHECK(result.usage.active_experts().moe == expected.usage.active_experts().moe);
}

TEST_CASE("score_continuations: a model on another device scores as on the CPU", "[eval][device]") {
  const std::vector<Continuation> items = {{.tokens = {256, 5, 6, 7, 8}, .n_scored = 2},
                                           {.tokens = {256, 1, 2, 3, 4}, .n_scored = 4}};
  auto on_cpu = model_on(at::kCPU);
  auto on_device = model_on(fake_device());
  LikelihoodOptions options;
  options.plan = kPlan;
  const auto expected = score_continuations(on_cpu, items, options);
  const auto result = score_continuations(on_device, items, options);
  REQUIRE(result.size() == items.size());
  for (size_t i = 0; i < items.size(); ++i) {
    CHECK(result[i].log_likelihood == Approx(expected[i].log_likelihood).epsilon(1e-5));
    CHECK(result[i].is_greedy == expected[i].is_greedy);
  }
}

}  // namespace
}  // namespace dsmoe
