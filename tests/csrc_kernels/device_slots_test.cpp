// Rows by expert and slots by token on another device than the CPU, with its kernels.
#include <ATen/TensorOperators.h>

#include <array>
#include <catch2/catch.hpp>
#include <vector>

#include "csrc_kernels/dispatch/dispatch.h"
#include "csrc_kernels/random_tensors.h"
#include "support/fake_device.h"
#include "support/test_device.h"

namespace dsmoe {

TEST_CASE("device: slots of tokens, to rows and back", "[device_ops]") {
  const auto device = test_device();
  REQUIRE(device_kernels<DispatchKernels>().list_slots != nullptr);
  RandomTensors random(31);
  // With and without whole packs, and slots too few for some tokens.
  for (const auto& [n_tokens, n_experts, most, width] :
       {std::array<int64_t, 4>{1, 1, 1, 8}, {9, 4, 4, 24}, {40, 6, 2, 7}}) {
    for (const auto type : {at::kFloat, at::kBFloat16}) {
      CAPTURE(n_tokens, n_experts, most, type);
      const auto selected = random.normal({n_tokens, n_experts}).lt(0.2);
      const int64_t max_rows = n_tokens * n_experts;
      const auto y = random.normal({max_rows, width}, type);
      const auto z = random.normal({n_tokens * most, width}, type);
      const auto run = [&](at::Device where) {
        const auto marks = selected.to(where);
        const auto leaf = [&](const at::Tensor& t) {
          return t.detach().clone().to(where).requires_grad_(true);
        };
        const auto leaves = std::array{leaf(y), leaf(z)};
        std::vector<at::Tensor> all;
        {
          const ForbidWaits forbidden;
          const auto slots = list_slots(list_rows(marks, max_rows), most);
          const auto by_slot = combine_rows(leaves[0], slots);
          const auto by_row = dispatch_rows(leaves[1], slots);
          (by_slot * by_slot).sum().backward();
          (by_row * by_row).sum().backward();
          all = {slots.row_of_pair[0], slots.token_of_row, by_slot.detach(), by_row.detach()};
        }
        for (const auto& one : leaves) all.push_back(one.grad());
        return all;
      };
      const auto got = run(device);
      const auto expected = run(at::kCPU);
      // Nothing is added up: the numbers are moved.
      for (size_t i = 0; i < got.size(); ++i) CHECK(got[i].cpu().equal(expected[i]));
    }
  }
}

}  // namespace dsmoe
