#include "infer/infer_bench.h"

#include <catch2/catch.hpp>

#include "model/packed_weights.h"
#include "support/tiny_model.h"

namespace dsmoe {

TEST_CASE("run_infer_bench: times every round beside the bandwidth and counts active experts") {
  auto model = make_tiny_model();
  pack_weights(model, {.format = PackedFormat::kFloat32});
  InferBenchOptions options{
      .prompt = 5, .generate = 3, .depth = 4, .batch = 2, .repetitions = 2, .warmup = 0};
  options.plan = parse_routing_plan("moe:top_k=2;moa:all");
  const auto result = run_infer_bench(model, options);
  REQUIRE(result.rounds.size() == 2);
  for (const auto& round : result.rounds) {
    CHECK(round.prefill_seconds > 0);
    CHECK(round.decode_seconds > 0);
    CHECK(round.bandwidth() > 1e8);
  }
  CHECK(result.active.moe == std::vector<double>{2, 2});
  CHECK(result.active.moa == std::vector<double>{3, 3});
}

TEST_CASE("weight_bytes_per_token: worked out for one shape") {
  auto config = tiny_model_config();
  config.n_layers = 1;
  config.attention.router.kind = RouterKind::kLinear;
  config.ffn.router.kind = RouterKind::kLinear;
  // Attention experts of Q and O, 2 * 8 * 12 each; K and V; FFN experts, 2 * 3 * 12; the head.
  const double matrices = 2 * 192 + 2 * 8 * 12 + 1 * 72 + 257 * 12;
  const double rest = (3 + 5) * 12 + 3 * 12;  // routers and norms, float32
  const ActiveExperts active{.moe = {1}, .moa = {2}};
  CHECK(weight_bytes_per_token(config, PackedFormat::kFloat32, active) ==
        Approx(4 * (matrices + rest)));
  CHECK(weight_bytes_per_token(config, PackedFormat::kBfloat16, active) ==
        Approx(2 * matrices + 4 * rest));
  CHECK(weight_bytes_per_token(config, PackedFormat::kInt8, active) ==
        Approx(matrices * (1 + 4.0 / 128) + 4 * rest));
}

}  // namespace dsmoe
