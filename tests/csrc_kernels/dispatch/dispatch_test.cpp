#include "csrc_kernels/dispatch/dispatch.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>

#include <array>
#include <catch2/catch.hpp>
#include <vector>

#include "csrc_kernels/random_tensors.h"

namespace dsmoe {
namespace {

at::Tensor numbers(const std::vector<int32_t>& values) { return at::tensor(values, at::kInt); }

}  // namespace

TEST_CASE("dispatch: a token's selected experts take its first slots", "[dispatch]") {
  // Token 0 selects experts 1 and 3, token 1 nobody, token 2 expert 0. Rows are sorted by expert:
  // (0, token 2), (1, token 0), (3, token 0).
  const auto selected = numbers({0, 1, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0}).view({3, 4}).to(at::kBool);
  const auto rows = list_rows(selected, 4);
  const auto slots = list_slots(rows, 2);
  CHECK(slots.row_of_pair[0].equal(numbers({1, 2, -1, -1, 0, -1})));
  CHECK(slots.token_of_row.equal(numbers({4, 0, 1, -1})));
  const auto y = at::tensor({10.0, 11.0, 12.0, 13.0}, at::kDouble).view({4, 1});
  const auto by_slot = combine_rows(y, slots);
  CHECK(by_slot.flatten().equal(at::tensor({11.0, 12.0, 0.0, 0.0, 10.0, 0.0}, at::kDouble)));
  CHECK(dispatch_rows(by_slot, slots)
            .flatten()
            .equal(at::tensor({10.0, 11.0, 12.0, 0.0}, at::kDouble)));
}

TEST_CASE("dispatch: what does not fit has no slot", "[dispatch]") {
  const auto selected = at::ones({2, 3}, at::kBool);
  const auto slots = list_slots(list_rows(selected, 5), 2);  // of 6 rows, 3 a token
  CHECK(slots.row_of_pair[0].equal(numbers({0, 2, 1, 3})));
  CHECK(slots.token_of_row.equal(numbers({0, 2, 1, 3, -1})));
}

TEST_CASE("dispatch: slots and rows name each other, tokens and experts in order", "[dispatch]") {
  RandomTensors random(21);
  for (const auto& [n_tokens, n_experts] :
       {std::array<int64_t, 2>{0, 3}, {1, 1}, {9, 4}, {40, 7}}) {
    for (const double share : {0.0, 0.4, 1.0}) {
      CAPTURE(n_tokens, n_experts, share);
      const auto selected = random.normal({n_tokens, n_experts})
                                .lt(share == 1.0   ? 100
                                    : share == 0.0 ? -100
                                                   : 0.2);
      const auto rows = list_rows(selected, n_tokens * n_experts);
      const auto slots = list_slots(rows, n_experts);
      REQUIRE(slots.row_of_pair[0].sizes() == at::IntArrayRef({n_tokens * n_experts}));
      REQUIRE(slots.token_of_row.sizes() == rows.token_of_row.sizes());
      const auto* row_of_slot = slots.row_of_pair[0].const_data_ptr<int32_t>();
      const auto* slot_of_row = slots.token_of_row.const_data_ptr<int32_t>();
      const auto row_of_pair = rows.row_of_pair.t().contiguous();
      const auto* row_of = row_of_pair.const_data_ptr<int32_t>();
      int64_t n_wrong = 0;
      for (int64_t token = 0; token < n_tokens; ++token) {
        int64_t slot = token * n_experts;
        for (int64_t expert = 0; expert < n_experts; ++expert) {
          const auto row = row_of[token * n_experts + expert];
          if (row < 0) continue;
          n_wrong += row_of_slot[slot] != row || slot_of_row[row] != slot;
          ++slot;
        }
        for (; slot < (token + 1) * n_experts; ++slot) n_wrong += row_of_slot[slot] != -1;
      }
      CHECK(n_wrong == 0);
      CHECK(slots.token_of_row.ge(0).sum().item<int64_t>() == selected.sum().item<int64_t>());
    }
  }
}

TEST_CASE("dispatch: gradients are those of finite differences", "[dispatch]") {
  RandomTensors random(22);
  const auto selected = random.normal({6, 5}).lt(0.3);
  const auto rows = list_rows(selected, 30);
  const auto slots = list_slots(rows, 4);  // some tokens have selected all five
  const auto y = random.leaf({30, 3});
  const auto z = random.leaf({24, 3});
  const auto of_slots = random.normal({24, 3});
  const auto of_rows = random.normal({30, 3});
  const auto sum = [&] {
    return (combine_rows(y, slots).square() * of_slots).sum() +
           (dispatch_rows(z, slots).square() * of_rows).sum();
  };
  sum().backward();
  for (const auto& leaf : {y, z}) {
    const at::NoGradGuard no_grad;
    CHECK(max_difference(leaf.grad(),
                         numeric_gradient([&] { return sum().item<double>(); }, leaf)) < 1e-8);
  }
}

TEST_CASE("dispatch: wrong shapes are refused", "[dispatch]") {
  const auto selected = at::ones({3, 2}, at::kBool);
  const auto rows = list_rows(selected, 6);
  CHECK_THROWS_AS(list_slots(rows, -1), c10::Error);
  CHECK_THROWS_AS(list_slots(rows, int64_t{1} << 30), c10::Error);
  const auto slots = list_slots(rows, 2);
  CHECK_THROWS_AS(combine_rows(at::zeros({5, 4}), slots), c10::Error);
  CHECK_THROWS_AS(dispatch_rows(at::zeros({5, 4}), slots), c10::Error);
}

}  // namespace dsmoe
