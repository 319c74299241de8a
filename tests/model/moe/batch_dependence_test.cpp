#include "model/moe/batch_dependence.h"

#include <catch2/catch.hpp>

#include "common/error.h"

namespace dsmoe {
namespace {

ModelConfig config_of(AttentionKind attention, FfnKind ffn) {
  ModelConfig config;
  config.n_layers = 2;
  config.attention.kind = attention;
  config.ffn.kind = ffn;
  return config;
}

}  // namespace

TEST_CASE("depends_on_batch: true for threshold_top_k over experts that the model has",
          "[model][routing]") {
  const auto both = config_of(AttentionKind::kMoa, FfnKind::kMoe);
  for (const std::string text : {"all", "top_k=2", "threshold=0.5", "threshold=0.5,max=2"}) {
    CHECK_FALSE(depends_on_batch(parse_routing_plan(text), both));
  }
  const auto moe = parse_routing_plan("moe:threshold_top_k=0.5;moa:all");
  const auto moa = parse_routing_plan("moe:all;moa:threshold_top_k=0.5");
  CHECK(depends_on_batch(parse_routing_plan("threshold_top_k=0.5"), both));
  CHECK(depends_on_batch(moe, both));
  CHECK(depends_on_batch(moa, both));
  CHECK_FALSE(depends_on_batch(moa, config_of(AttentionKind::kDense, FfnKind::kMoe)));
  CHECK_FALSE(depends_on_batch(moe, config_of(AttentionKind::kMoa, FfnKind::kDense)));
  const RoutingPlan second(
      {LayerRouting{},
       LayerRouting{.moa = RoutingPolicy::all(), .moe = RoutingPolicy::threshold_top_k(1)}});
  CHECK(depends_on_batch(second, both));
  auto first_only = config_of(AttentionKind::kDense, FfnKind::kPartitioned);
  first_only.ffn.partition.layers = std::string("0");
  CHECK_FALSE(depends_on_batch(second, first_only));
}

TEST_CASE("require_batch_independence: the error names the option and alternatives",
          "[model][routing]") {
  const auto both = config_of(AttentionKind::kMoa, FfnKind::kMoe);
  CHECK_NOTHROW(require_batch_independence(parse_routing_plan("top_k=1"), both, "--prompts"));
  CHECK_THROWS_WITH(
      require_batch_independence(parse_routing_plan("threshold_top_k=0.5"), both, "--prompts"),
      Catch::Contains("--prompts: ") && Catch::Contains("threshold_top_k") &&
          Catch::Contains("leave --prompts out"));
}

}  // namespace dsmoe
