// The host side of the .cu files over a fake runtime: what they start, in which shape and order.
#include <catch2/catch.hpp>
#include <numeric>
#include <vector>

#include "csrc_kernels/device/executions.h"
#include "csrc_kernels/moe/weighted_activation_body.h"
#include "csrc_kernels/moe/weighted_activation_cuda.h"
#include "support/fake_cuda_runtime.h"

namespace dsmoe {
namespace {

const auto kStream = reinterpret_cast<cudaStream_t>(uintptr_t{0x51});

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
  launch_weighted_activation(Activation::kReluSquared, rows.view(), kStream);
  REQUIRE(fake_cuda::launches().size() == 1);
  CHECK(fake_cuda::launches()[0].kernel == "dsmoe::device::weighted_activation_kReluSquared_float");
  CHECK(fake_cuda::launches()[0].stream == kStream);
  CHECK(rows.hidden == std::vector<float>(2 * 3 * 40, 2.0F));  // 0.5 * 2^2
}

TEST_CASE("launchers: no rows start nothing", "[launchers]") {
  fake_cuda::reset();
  Rows rows;
  launch_weighted_activation(Activation::kGelu, rows.view(0), kStream);
  CHECK(fake_cuda::launches().empty());
  CHECK(fake_cuda::take_error() == cudaSuccess);
}

TEST_CASE("launchers: a launch that fails leaves its error to be taken", "[launchers]") {
  fake_cuda::reset();
  Rows rows;
  fake_cuda::fail_launch(2, cudaErrorLaunchOutOfResources);
  launch_weighted_activation(Activation::kGelu, rows.view(), kStream);
  CHECK(fake_cuda::take_error() == cudaSuccess);
  launch_weighted_activation(Activation::kGelu, rows.view(), kStream);
  CHECK(fake_cuda::take_error() == cudaErrorLaunchOutOfResources);
  CHECK(fake_cuda::launches().size() == 1);
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
