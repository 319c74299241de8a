#include "csrc_kernels/dispatch/body.h"

#include <array>
#include <catch2/catch.hpp>
#include <vector>

#include "csrc_kernels/device/executions.h"

namespace dsmoe {

TEST_CASE("dispatch: the device's body gives tokens their slots", "[device]") {
  for (const auto emulation : emulations()) {
    // One token, no slots, more tokens than a block has lanes; some with more rows than slots.
    for (const auto& [n_tokens, n_experts, most] :
         {std::array<int64_t, 3>{0, 3, 2}, {1, 1, 1}, {5, 4, 0}, {600, 5, 3}}) {
      CAPTURE(static_cast<int>(emulation), n_tokens, n_experts, most);
      const auto marks = test_numbers(static_cast<size_t>(n_tokens * n_experts), 5);
      std::vector<int32_t> row_of_pair;
      int32_t n_rows = 0;
      for (const double mark : marks) row_of_pair.push_back(mark > 0 ? n_rows++ : -1);
      const auto n_slots = static_cast<size_t>(n_tokens * most);
      std::vector<int32_t> row_of_slot(n_slots, -7), slot_of_row(static_cast<size_t>(n_rows), -1);
      const SlotLists lists{.n_tokens = n_tokens,
                            .n_experts = n_experts,
                            .most = most,
                            .row_of_pair = row_of_pair.data(),
                            .row_of_slot = row_of_slot.data(),
                            .slot_of_row = slot_of_row.data()};
      run_emulated(emulation, device::list_slots_shape(lists), [&](auto& ctx) {
        device::list_slots_body(ctx, lists);
      });
      std::vector<int32_t> rows(n_slots, -1), slots(static_cast<size_t>(n_rows), -1);
      for (int64_t token = 0; token < n_tokens; ++token) {
        int64_t used = 0;
        for (int64_t e = 0; e < n_experts; ++e) {
          const auto row = row_of_pair[static_cast<size_t>(e * n_tokens + token)];
          if (row < 0 || used == most) continue;
          const int64_t slot = token * most + used++;
          rows[static_cast<size_t>(slot)] = row;
          slots[static_cast<size_t>(row)] = static_cast<int32_t>(slot);
        }
      }
      CHECK(row_of_slot == rows);
      CHECK(slot_of_row == slots);
    }
  }
}

}  // namespace dsmoe
