#include "report/cost_plan.h"

#include <algorithm>
#include <catch2/catch.hpp>

#include "common/error.h"
#include "report/small_config.h"

namespace dsmoe {
namespace {

// Per layer: Q and O of 3 experts of 2 heads of 4, shared K and V, 8 FFN experts of 2 * 5 * 10.
constexpr double kAttention = 2 * 10 * (24 + 8);
constexpr double kFfnExpert = 2 * 5 * 10;
constexpr double kRouters = 10 * (3 + 8);
constexpr double kAll = 2 * (kAttention + 8 * kFfnExpert + kRouters + 2 * 10) + 10;
constexpr double kHead = 100 * 10;

PlanRequest request_of(const RunConfig& config) {
  return {.gpu = {"test", 1e6, 1e9, 1e6, 1e6, 1e6},
          .n_gpus = 2,
          .mfu = 0.5,
          .price_per_hour = 3,
          .policies = default_policies(config.model)};
}

TEST_CASE("plan_cost: counts parameters and operations of every policy", "[report]") {
  const auto config = small_config();
  const auto plan = plan_cost(config, request_of(config));
  CHECK(plan.parameters.total() == static_cast<int64_t>(kAll + kHead));
  REQUIRE(plan.policies.size() == 4);
  CHECK(plan.policies[0].policy == "all");
  CHECK(plan.policies[0].active_parameters == kAll);
  CHECK(plan.policies[2].policy == "moe:top_k=2;moa:all");
  CHECK(plan.policies[2].active_parameters == kAll - 2 * 6 * kFfnExpert);
  // Attention: 2 layers of 24 query channels, 4 operations for each key; 10 keys on average, 20 at
  // the end of the context.
  CHECK(plan.policies[2].prefill_flops == 2 * (kAll - 12 * kFfnExpert + kHead) + 4 * 10 * 2 * 24);
  CHECK(plan.policies[2].decode_flops == 2 * (kAll - 12 * kFfnExpert + kHead) + 4 * 20 * 2 * 24);
  CHECK(plan.train_flops_per_token == 3 * (2 * (kAll + kHead) + 4 * 10 * 2 * 24));
}

TEST_CASE("plan_cost: sparse training costs the experts it uses", "[report]") {
  auto config = small_config();
  config.model.training_policy = "top_k=2";
  CHECK(plan_cost(config, request_of(config)).train_flops_per_token ==
        3 * (2 * (kAll - 12 * kFfnExpert + kHead) + 4 * 10 * 2 * 24));
}

TEST_CASE("plan_cost: training partitioned experts costs as much as all experts", "[report]") {
  auto config = small_config();
  config.model.ffn.kind = FfnKind::kPartitioned;
  config.model.ffn.d_ffn = config.model.ffn.n_experts * config.model.ffn.d_expert;
  const double all = plan_cost(config, {}).train_flops_per_token;
  config.model.training_policy = "threshold=0.5";
  CHECK(plan_cost(config, {}).train_flops_per_token == all);
}

TEST_CASE("plan_cost: time is operations over the speed of all GPUs", "[report]") {
  auto config = small_config();
  config.train.steps = 7200;
  const auto plan = plan_cost(config, request_of(config));
  const double tokens = 3 * 4 * 20;
  CHECK(plan.tokens_per_step == tokens);
  CHECK(plan.compute_seconds == Approx(tokens * plan.train_flops_per_token / (0.5 * 1e6 * 2)));
  CHECK(plan.gpu_hours == Approx(plan.step_seconds * 7200 * 2 / 3600));
  CHECK(plan.cost == Approx(3 * plan.gpu_hours));
  CHECK(plan.fits);
  config.train.checkpoint_activations = Recompute::kBlock;  // a second forward pass: 4 instead of 3
  CHECK(plan_cost(config, request_of(config)).compute_seconds ==
        Approx(plan.compute_seconds * 4 / 3));
  // The attention half again: its matrices and router, norms, and 24 query channels of 10 keys.
  config.train.checkpoint_activations = Recompute::kAttention;
  const double again = 2 * (2 * (kAttention + 30 + 2 * 10) + 10) + 4 * 10 * 2 * 24;
  CHECK(plan_cost(config, request_of(config)).compute_seconds ==
        Approx(plan.compute_seconds * (1 + again / plan.train_flops_per_token)));
  auto request = request_of(config);
  request.gpu.memory_bytes = 1000;
  CHECK(!plan_cost(config, request).fits);
}

TEST_CASE("plan_cost: a ring all-reduces gradients once, beside the last backward pass",
          "[report]") {
  auto config = small_config();
  config.train.accumulation = 4;
  auto request = request_of(config);
  request.n_gpus = 4;
  request.gpus_per_host = 4;
  request.gpu.link_bytes_per_second = 1e6;
  request.network_bytes_per_second = 1e3;
  const auto plan = plan_cost(config, request);
  const double bytes = 4.0 * static_cast<double>(plan.parameters.total());
  CHECK(plan.reduce_seconds == Approx(2 * 3.0 / 4 * bytes / 1e6));
  // One micro-batch a rank: two thirds of it overlap with the ring.
  const double left = plan.reduce_seconds - plan.compute_seconds * 2 / 3;
  CHECK(plan.exposed_seconds == Approx(std::max(left, 0.0)));
  CHECK(plan.step_seconds == Approx(plan.compute_seconds + plan.exposed_seconds));
  request.gpus_per_host = 2;  // over the network: too slow to hide
  const auto slow = plan_cost(config, request);
  CHECK(slow.reduce_seconds == Approx(1e3 * plan.reduce_seconds));
  CHECK(slow.exposed_seconds == Approx(slow.reduce_seconds - slow.compute_seconds * 2 / 3));
  config.distributed.compress_gradients = true;
  CHECK(plan_cost(config, request).reduce_seconds == Approx(slow.reduce_seconds / 2));
  config.distributed.compress_gradients = false;
  config.distributed.shard_optimizer = true;
  const auto sharded = plan_cost(config, request);
  CHECK(sharded.reduce_seconds == Approx(slow.reduce_seconds * 3 / 2));
  CHECK(sharded.memory.optimizer == Approx(slow.memory.optimizer / 4));
}

TEST_CASE(
    "plan_cost: the sparse baseline has twice the FFN parameters and uses a quarter of this "
    "model's",
    "[report]") {
  const auto config = small_config();
  const auto sparse = plan_cost(config, request_of(config)).sparse_baseline;
  // 16 experts of width 2 * 40 / 16 = 5; their router has 16 rows instead of 8.
  const double total = kAll + kHead + 2 * (8 * kFfnExpert + 10 * 8);
  CHECK(sparse.parameters_total == static_cast<int64_t>(total));
  const double used = total - kHead - 2 * 14 * kFfnExpert;
  CHECK(sparse.train_flops_per_token == 3 * (2 * (used + kHead) + 4 * 10 * 2 * 24));
  CHECK(sparse.flops_ratio ==
        Approx(3 * (2 * (kAll + kHead) + 4 * 10 * 2 * 24) / sparse.train_flops_per_token));
  CHECK(sparse.memory_ratio == Approx((kAll + kHead) / total));
}

TEST_CASE("plan_cost: a policy that depends on the data is refused", "[report]") {
  const auto config = small_config();
  auto request = request_of(config);
  request.policies = {RoutingPolicy::threshold(0.48)};
  CHECK_THROWS_WITH(plan_cost(config, request), Catch::Contains("threshold=0.48"));
}

TEST_CASE("find_gpu: the error for an unknown name lists the known ones", "[report]") {
  CHECK(find_gpu("a100").flops == 312e12);
  CHECK_THROWS_WITH(find_gpu("v1"), Catch::Contains("a100, h100"));
}

}  // namespace
}  // namespace dsmoe
