#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include "csrc_kernels/dispatch/dispatch.h"

namespace dsmoe {

Dispatch list_rows_ref(const at::Tensor& selected, int64_t max_rows) {
  const int64_t n_tokens = selected.size(0);
  const int64_t n_experts = selected.size(1);
  const auto marks = selected.t().reshape({-1});  // expert by expert
  const auto counts = marks.cumsum(0);
  const auto nowhere = at::full({}, -1, counts.options());
  const auto rows = at::where(marks.logical_and(counts.le(max_rows)), counts - 1, nowhere);
  const auto pairs = at::arange(n_experts * n_tokens, counts.options());
  // Pairs without a row go to one more, which is cut off.
  const auto places = at::where(rows.ge(0), rows, at::full({}, max_rows, counts.options()));
  const auto list = [&](const at::Tensor& values) {
    return at::full({max_rows + 1}, -1, counts.options())
        .scatter(0, places, values)
        .narrow(0, 0, max_rows)
        .to(at::kInt);
  };
  const auto ends = n_tokens == 0 ? at::zeros({n_experts}, counts.options())
                                  : counts.view({n_experts, n_tokens}).select(1, n_tokens - 1);
  return {.n_tokens = n_tokens,
          .token_of_row = list(n_tokens == 0 ? pairs : pairs.remainder(n_tokens)),
          .expert_of_row = list(n_tokens == 0 ? pairs : pairs.floor_divide(n_tokens)),
          .ends = ends.clamp_max(max_rows).to(at::kInt),
          .row_of_pair = rows.view({n_experts, n_tokens}).to(at::kInt)};
}

at::Tensor dispatch_rows_ref(const at::Tensor& x, const Dispatch& rows) {
  if (x.size(0) == 0) return at::zeros({rows.token_of_row.size(0), x.size(1)}, x.options());
  const auto taken = x.index_select(0, rows.token_of_row.clamp_min(0));
  return taken.masked_fill(rows.token_of_row.lt(0).unsqueeze(1), 0);
}

at::Tensor combine_rows_ref(const at::Tensor& y, const Dispatch& rows) {
  const int64_t n_tokens = rows.row_of_pair.size(1);
  const auto wide = y.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  // Rows past the last go to one more token, which is cut off.
  const auto places = at::where(rows.token_of_row.ge(0),
                                rows.token_of_row,
                                at::full({}, n_tokens, rows.token_of_row.options()));
  return at::zeros({n_tokens + 1, y.size(1)}, y.options().dtype(wide))
      .index_add(0, places, y.to(wide))
      .narrow(0, 0, n_tokens)
      .to(y.scalar_type());
}

Dispatch list_slots_ref(const Dispatch& rows, int64_t most) {
  const int64_t n_slots = rows.row_of_pair.size(1) * most;
  const auto numbers = rows.row_of_pair.options();
  const auto list = [&](int64_t n) { return at::full({n}, -1, numbers); };
  const auto slots_of = [&](const at::Tensor& row_of_slot, const at::Tensor& slot_of_row) {
    return Dispatch{
        .n_tokens = n_slots, .token_of_row = slot_of_row, .row_of_pair = row_of_slot.unsqueeze(0)};
  };
  if (rows.row_of_pair.numel() == 0) {
    return slots_of(list(n_slots), list(rows.token_of_row.size(0)));
  }
  // From 1: how many rows a token has up to this pair, this one among them.
  const auto counts = rows.row_of_pair.ge(0).cumsum(0, at::kInt).reshape({-1});
  const auto pair_of_row = rows.expert_of_row * rows.row_of_pair.size(1) + rows.token_of_row;
  const auto count = counts.index_select(0, pair_of_row.clamp_min(0));  // [max_rows]
  const auto has_slot = rows.token_of_row.ge(0).logical_and(count.le(most));
  const auto slots = rows.token_of_row * most + count - 1;
  // Rows without a slot go to one more, which is cut off.
  const auto places = at::where(has_slot, slots, at::full({}, n_slots, numbers)).to(at::kLong);
  return slots_of(list(n_slots + 1)
                      .scatter(0, places, at::arange(places.size(0), numbers))
                      .narrow(0, 0, n_slots),
                  at::where(has_slot, slots, at::full({}, -1, numbers)));
}

}  // namespace dsmoe
