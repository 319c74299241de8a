// The host side of the .cu files over a fake runtime: what they start, in which shape and order.
#include <algorithm>
#include <catch2/catch.hpp>
#include <memory>
#include <string>
#include <vector>

#include "csrc_kernels/decode_attention/kernels.h"
#include "csrc_kernels/device/executions.h"
#include "csrc_kernels/dispatch/kernels.h"
#include "csrc_kernels/expert_gemv/kernels.h"
#include "csrc_kernels/router/kernels.h"
#include "csrc_kernels/weighted_activation/body.h"
#include "csrc_kernels/weighted_activation/kernels.h"
#include "support/fake_cuda_runtime.h"

namespace dsmoe {
namespace {

using fake_cuda::kStream;

template <typename T>
const T& argument(void** arguments, int i) {
  return *static_cast<const T*>(arguments[i]);
}

LaunchShape shape_of(const fake_cuda::Launch& launch) {
  return {.n_blocks = launch.grid.x,
          .n_lanes = static_cast<int>(launch.block.x),
          .shared_bytes = static_cast<int64_t>(launch.shared_bytes)};
}

struct Rows {
  std::vector<float> up = std::vector<float>(2 * 3 * 40, 2.0F);
  std::vector<float> weights = std::vector<float>(2 * 3, 0.5F);
  std::vector<float> hidden = std::vector<float>(2 * 3 * 40);
  WeightedActivationRows<float, float> view(int64_t n_rows = 2) {
    return {.n_rows = n_rows,
            .n_experts = 3,
            .width = 40,
            .up = up.data(),
            .gate = nullptr,
            .weights = weights.data(),
            .hidden = hidden.data()};
  }
};

}  // namespace

TEST_CASE("launchers: the kernel of the activation and type runs over all rows", "[launchers]") {
  fake_cuda::reset();
  Rows rows;
  fake_cuda::set_kernel("dsmoe::device::weighted_activation_kReluSquared_float",
                        [](const fake_cuda::Launch& launch, void** arguments) {
                          const auto& view =
                              argument<WeightedActivationRows<float, float>>(arguments, 0);
                          emulated::run_sequential(shape_of(launch), [&](auto& ctx) {
                            device::weighted_activation_body<Activation::kReluSquared>(ctx, view);
                          });
                        });
  cuda_kernels<WeightedActivationKernels<float, float>>().forward(Activation::kReluSquared,
                                                                  rows.view());
  REQUIRE(fake_cuda::launches().size() == 1);
  CHECK(fake_cuda::launches()[0].kernel == "dsmoe::device::weighted_activation_kReluSquared_float");
  CHECK(fake_cuda::launches()[0].stream == kStream);
  CHECK(rows.hidden == std::vector<float>(2 * 3 * 40, 2.0F));  // 0.5 * 2^2
}

TEST_CASE("launchers: no rows start nothing", "[launchers]") {
  fake_cuda::reset();
  Rows rows;
  cuda_kernels<WeightedActivationKernels<float, float>>().forward(Activation::kGelu, rows.view(0));
  CHECK(fake_cuda::launches().empty());
  CHECK(fake_cuda::take_error() == cudaSuccess);
}

TEST_CASE("launchers: a launch that fails leaves its error to be taken", "[launchers]") {
  fake_cuda::reset();
  Rows rows;
  fake_cuda::fail_launch(2, cudaErrorLaunchOutOfResources);
  cuda_kernels<WeightedActivationKernels<float, float>>().forward(Activation::kGelu, rows.view());
  CHECK(fake_cuda::take_error() == cudaSuccess);
  cuda_kernels<WeightedActivationKernels<float, float>>().forward(Activation::kGelu, rows.view());
  CHECK(fake_cuda::take_error() == cudaErrorLaunchOutOfResources);
  CHECK(fake_cuda::launches().size() == 1);
}

TEST_CASE("launchers: decode attention joins its tiles after they are made", "[launchers]") {
  fake_cuda::reset();
  std::vector<float> q(2 * 3 * 8), keys(2 * 300 * 8), partial(2 * 3 * 3 * 10), y(2 * 3 * 8);
  const std::vector<int64_t> positions = {299, 4};
  const DecodeAttention<float> args{.batch = 2,
                                    .n_kv_heads = 1,
                                    .n_groups = 3,
                                    .capacity = 300,
                                    .head_dim = 8,
                                    .by_expert = true,
                                    .q = q.data(),
                                    .keys = keys.data(),
                                    .values = keys.data(),
                                    .cos = nullptr,
                                    .sin = nullptr,
                                    .positions = positions.data(),
                                    .weights = nullptr,
                                    .partial = partial.data(),
                                    .y = y.data()};
  cuda_kernels<DecodeAttentionKernels<float>>().attend(args);
  const auto& launches = fake_cuda::launches();
  REQUIRE(launches.size() == 2);
  CHECK(launches[0].kernel == "dsmoe::device::decode_tiles_float");
  CHECK(launches[0].grid.x == 2 * 3);  // a block for each sequence and tile of 128 keys
  CHECK(launches[1].kernel == "dsmoe::device::decode_join_float");
  CHECK(launches[1].grid.x == 2 * 3);  // for each sequence and head
  for (const auto& launch : launches) CHECK(launch.stream == kStream);
  // The second launch goes wrong: its error is there to be taken.
  fake_cuda::reset();
  fake_cuda::fail_launch(2, cudaErrorLaunchFailure);
  cuda_kernels<DecodeAttentionKernels<float>>().attend(args);
  CHECK(fake_cuda::take_error() == cudaErrorLaunchFailure);
}

TEST_CASE("launchers: rows are listed after the scan of their marks", "[launchers]") {
  fake_cuda::reset();
  constexpr int64_t kTokens = 5000, kExperts = 3;
  REQUIRE(cuda_kernels<DispatchKernels>().workspace_bytes(kTokens * kExperts) > 0);
  std::vector<char> workspace(
      static_cast<size_t>(cuda_kernels<DispatchKernels>().workspace_bytes(kTokens * kExperts)));
  const auto selected = std::make_unique<bool[]>(kTokens * kExperts);
  std::vector<int32_t> pairs(kTokens * kExperts), tokens(10), experts(10), ends(kExperts);
  const RowLists lists{.n_tokens = kTokens,
                       .n_experts = kExperts,
                       .max_rows = 10,
                       .selected = selected.get(),
                       .row_of_pair = pairs.data(),
                       .token_of_row = tokens.data(),
                       .expert_of_row = experts.data(),
                       .ends = ends.data(),
                       .workspace = workspace.data()};
  cuda_kernels<DispatchKernels>().list(lists);
  const auto& launches = fake_cuda::launches();
  REQUIRE(launches.size() >= 2);
  for (size_t i = 0; i + 1 < launches.size(); ++i) {
    CHECK(launches[i].kernel.find("cub::") != std::string::npos);
  }
  CHECK(launches.back().kernel == "dsmoe::device::list_rows");
  CHECK(fake_cuda::take_error() == cudaSuccess);
}

TEST_CASE("launchers: slots are listed by a lane per token", "[launchers]") {
  fake_cuda::reset();
  std::vector<int32_t> pairs(600 * 2, -1), slots(600 * 2), rows(5, -1);
  SlotLists lists{.n_tokens = 600,
                  .n_experts = 2,
                  .most = 2,
                  .row_of_pair = pairs.data(),
                  .row_of_slot = slots.data(),
                  .slot_of_row = rows.data()};
  cuda_kernels<DispatchKernels>().list_slots(lists);
  REQUIRE(fake_cuda::launches().size() == 1);
  CHECK(fake_cuda::launches()[0].kernel == "dsmoe::device::list_slots");
  CHECK(fake_cuda::launches()[0].grid.x == 3);
  CHECK(fake_cuda::launches()[0].stream == kStream);
  lists.n_tokens = 0;
  cuda_kernels<DispatchKernels>().list_slots(lists);
  CHECK(fake_cuda::launches().size() == 1);
}

TEST_CASE("launchers: one token and several take kernels of their own", "[launchers]") {
  fake_cuda::reset();
  std::vector<float> numbers(8 * 8);
  GemvSum<float> args{.n_tokens = 1,
                      .n_experts = 2,
                      .width = 4,
                      .d_out = 4,
                      .hidden = numbers.data(),
                      .down = numbers.data(),
                      .bias = nullptr,
                      .weights = numbers.data(),
                      .weighted = false,
                      .y = numbers.data()};
  cuda_kernels<ExpertGemvKernels<float>>().sum(args);
  args.n_tokens = 2;
  cuda_kernels<ExpertGemvKernels<float>>().sum(args);
  REQUIRE(fake_cuda::launches().size() == 2);
  CHECK(fake_cuda::launches()[0].kernel == "dsmoe::device::expert_gemv_sum_1_float");
  CHECK(fake_cuda::launches()[1].kernel == "dsmoe::device::expert_gemv_sum_8_float");
}

TEST_CASE("launchers: a router goes row by row, or by tiles of many rows", "[launchers]") {
  const auto launch = [](int64_t n_rows, int64_t width) {
    cuda_kernels<RouterKernels<float, float>>().forward(
        RouterTable<float, float>{.n_rows = n_rows,
                                  .n_experts = 33,
                                  .width = width,
                                  .gated = false,
                                  .sigmoid = false,
                                  .x = nullptr,
                                  .weight = nullptr,
                                  .logits = nullptr,
                                  .probs = nullptr});
  };
  fake_cuda::reset();
  launch(0, 8);
  CHECK(fake_cuda::launches().empty());
  launch(256, 8);
  launch(257, 8);
  launch(1, 20000);  // a row that shared memory does not hold
  const auto& launches = fake_cuda::launches();
  REQUIRE(launches.size() == 3);
  CHECK(launches[0].kernel == "dsmoe::device::router_rows_float");
  CHECK(launches[0].grid.x == 256);
  CHECK(launches[0].block.x == 1024);  // a warp for each of 32 experts at once
  CHECK(launches[1].kernel == "dsmoe::device::router_tiles_float");
  CHECK(launches[1].grid.x == 9);
  CHECK(launches[2].kernel == "dsmoe::device::router_tiles_float");
  CHECK(fake_cuda::take_error() == cudaSuccess);
}

TEST_CASE("launchers: a router's gradients take a block per chunk and 64 columns", "[launchers]") {
  fake_cuda::reset();
  const RouterTable<Bfloat16, float> table{.n_rows = 8192,
                                           .n_experts = 32,
                                           .width = 256,
                                           .gated = true,
                                           .sigmoid = false,
                                           .x = nullptr,
                                           .weight = nullptr,
                                           .logits = nullptr,
                                           .probs = nullptr};
  cuda_kernels<RouterKernels<Bfloat16, float>>().backward(table,
                                                          RouterGradients<Bfloat16, float>{});
  REQUIRE(fake_cuda::launches().size() == 1);
  CHECK(fake_cuda::launches()[0].kernel == "dsmoe::device::router_backward_Bfloat16");
  CHECK(fake_cuda::launches()[0].grid.x == 64 * 4);
  CHECK(fake_cuda::launches()[0].block.x == 256);
  CHECK(fake_cuda::launches()[0].stream == kStream);
}

TEST_CASE("launchers: every activation and type has kernels", "[launchers]") {
  const auto names = fake_cuda::registered_kernels();
  for (const char* activation :
       {"kIdentity", "kGelu", "kGeluTanh", "kSwiglu", "kSilu", "kQuickGelu", "kReluSquared"}) {
    for (const char* type : {"float", "double", "Bfloat16"}) {
      for (const char* pass : {"weighted_activation_", "weighted_activation_backward_"}) {
        const std::string name = std::string("dsmoe::device::") + pass + activation + "_" + type;
        CAPTURE(name);
        CHECK(std::find(names.begin(), names.end(), name) != names.end());
      }
    }
  }
}

}  // namespace dsmoe
