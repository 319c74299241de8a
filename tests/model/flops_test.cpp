#include "model/flops.h"

#include <catch2/catch.hpp>

#include "support/tiny_model_config.h"

namespace dsmoe {
namespace {

// Of the tiny model (see parameter_count_test.cpp): 2 layers, 3 attention experts of 2 heads of 4.
constexpr double kWeights = 2 * (3 * 192 + 192 + 135 + 5 * 72 + 145 + 24) + 12;
constexpr double kHead = 257 * 12;

TEST_CASE("forward_flops_per_token: two operations per weight, four per key and query channel",
          "[model][flops]") {
  const auto config = tiny_model_config();
  const auto all = all_experts(config);
  CHECK(forward_flops_per_token(config, all, 0) == 2 * (kWeights + kHead));
  CHECK(forward_flops_per_token(config, all, 10) - forward_flops_per_token(config, all, 0) ==
        4 * 10 * (2 * 3 * 2 * 4));
}

TEST_CASE("forward_flops_per_token: an expert left out costs neither weights nor queries",
          "[model][flops]") {
  const auto config = tiny_model_config();
  auto active = all_experts(config);
  active.moe[0] -= 2;
  active.moa[1] -= 1;
  CHECK(forward_flops_per_token(config, all_experts(config), 10) -
            forward_flops_per_token(config, active, 10) ==
        2 * (2 * 72 + 192) + 4 * 10 * (2 * 4));
}

TEST_CASE("train_flops_per_token: three forward passes over half the keys", "[model][flops]") {
  auto config = tiny_model_config();
  CHECK(train_flops_per_token(config, 24) == 6 * (kWeights + kHead) + 6 * 24 * 48);
  config.attention.kind = AttentionKind::kDense;
  config.attention.n_heads = 6;
  config.attention.n_kv_heads = 2;
  // The same heads without their router.
  CHECK(train_flops_per_token(config, 24) == 6 * (kWeights - 2 * 135 + kHead) + 6 * 24 * 48);
}

}  // namespace
}  // namespace dsmoe
