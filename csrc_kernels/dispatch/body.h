#pragma once

#include "csrc_kernels/common/device_body.h"
#include "csrc_kernels/dispatch/kernels.h"

/// dispatch on a GPU. A scan over the marks, expert by expert, numbers the rows; the bodies here
/// write the lists, a lane per pair or token, and move rows, a warp per row.
namespace dsmoe::device {

constexpr int kRowLanes = 256;
constexpr int kRowWarps = kRowLanes / kWarpLanes;

/// Whether pair i = expert * n_tokens + token is selected.
DSMOE_HD inline bool is_marked(const RowLists& lists, int64_t i) {
  return lists.selected[i % lists.n_tokens * lists.n_experts + i / lists.n_tokens];
}

inline LaunchShape list_rows_shape(const RowLists& lists) {
  return {.n_blocks = blocks_for(lists.n_experts * lists.n_tokens, kRowLanes),
          .n_lanes = kRowLanes};
}

/// row_of_pair holds the inclusive sums of the marks before, the rows after; the lists hold -1.
template <typename Context>
DSMOE_HD void list_rows_body(Context& ctx, const RowLists& lists) {
  ctx.lanes([&](int lane) {
    const int64_t i = ctx.block() * ctx.n_lanes() + lane;
    if (i >= lists.n_experts * lists.n_tokens) return;
    const int64_t expert = i / lists.n_tokens;
    const int64_t token = i % lists.n_tokens;
    const int32_t count = lists.row_of_pair[i];
    const bool is_row = is_marked(lists, i) && count <= lists.max_rows;
    lists.row_of_pair[i] = is_row ? count - 1 : -1;
    if (is_row) {
      lists.token_of_row[count - 1] = static_cast<int32_t>(token);
      lists.expert_of_row[count - 1] = static_cast<int32_t>(expert);
    }
    if (token == lists.n_tokens - 1) {
      lists.ends[expert] = count < lists.max_rows ? count : static_cast<int32_t>(lists.max_rows);
    }
  });
}

inline LaunchShape list_slots_shape(const SlotLists& lists) {
  return {.n_blocks = blocks_for(lists.n_tokens, kRowLanes), .n_lanes = kRowLanes};
}

template <typename Context>
DSMOE_HD void list_slots_body(Context& ctx, const SlotLists& lists) {
  ctx.lanes([&](int lane) {
    const int64_t token = ctx.block() * ctx.n_lanes() + lane;
    if (token >= lists.n_tokens) return;
    int64_t slot = token * lists.most;
    const int64_t end = slot + lists.most;
    DSMOE_KEEP_LOOP
    for (int64_t e = 0; e < lists.n_experts && slot < end; ++e) {
      const int32_t row = lists.row_of_pair[e * lists.n_tokens + token];
      if (row < 0) continue;
      lists.row_of_slot[slot] = row;
      lists.slot_of_row[row] = static_cast<int32_t>(slot);
      ++slot;
    }
    DSMOE_KEEP_LOOP
    for (; slot < end; ++slot) lists.row_of_slot[slot] = -1;
  });
}

template <typename T>
LaunchShape dispatch_rows_shape(const MovedRows<T>& rows) {
  return {.n_blocks = rows.width == 0 ? 0 : blocks_for(rows.max_rows, kRowWarps),
          .n_lanes = kRowLanes};
}

template <typename T>
LaunchShape combine_rows_shape(const MovedRows<T>& rows) {
  return {.n_blocks = rows.width == 0 ? 0 : blocks_for(rows.n_tokens, kRowWarps),
          .n_lanes = kRowLanes};
}

template <int V, typename T>
DSMOE_HD void gather_row(const MovedRows<T>& rows, int64_t row, int lane) {
  const int64_t token = rows.token_of_row[row];
  for (int64_t i = int64_t{V} * lane; i < rows.width; i += int64_t{V} * kWarpLanes) {
    Pack<T, V> pack;
    if (token >= 0) {
      pack = load_pack<V>(rows.from + token * rows.width + i);
    } else {
      for (int v = 0; v < V; ++v) store(pack.at[v], 0.0F);
    }
    store_pack(rows.to + row * rows.width + i, pack);
  }
}

template <int V, typename T>
DSMOE_HD void combine_row(const MovedRows<T>& rows, int64_t token, int lane) {
  for (int64_t i = int64_t{V} * lane; i < rows.width; i += int64_t{V} * kWarpLanes) {
    float sums[V] = {};
    DSMOE_KEEP_LOOP
    for (int64_t e = 0; e < rows.n_experts; ++e) {
      const int64_t row = rows.row_of_pair[e * rows.n_tokens + token];
      if (row < 0) continue;
      const auto pack = load_pack<V>(rows.from + row * rows.width + i);
      for (int v = 0; v < V; ++v) sums[v] += load(pack.at[v]);
    }
    Pack<T, V> pack;
    for (int v = 0; v < V; ++v) store(pack.at[v], sums[v]);
    store_pack(rows.to + token * rows.width + i, pack);
  }
}

template <typename T>
DSMOE_HD bool rows_take_packs(const MovedRows<T>& rows) {
  return is_packable<kPackSize<T>>(rows.from, rows.width) &&
         is_packable<kPackSize<T>>(rows.to, rows.width);
}

template <typename Context, typename T>
DSMOE_HD void dispatch_rows_body(Context& ctx, const MovedRows<T>& rows) {
  const bool packs = rows_take_packs(rows);
  ctx.lanes([&](int lane) {
    const int64_t row = ctx.block() * kRowWarps + lane / kWarpLanes;
    if (row >= rows.max_rows) return;
    if (packs) {
      gather_row<kPackSize<T>>(rows, row, lane % kWarpLanes);
    } else {
      gather_row<1>(rows, row, lane % kWarpLanes);
    }
  });
}

template <typename Context, typename T>
DSMOE_HD void combine_rows_body(Context& ctx, const MovedRows<T>& rows) {
  const bool packs = rows_take_packs(rows);
  ctx.lanes([&](int lane) {
    const int64_t token = ctx.block() * kRowWarps + lane / kWarpLanes;
    if (token >= rows.n_tokens) return;
    if (packs) {
      combine_row<kPackSize<T>>(rows, token, lane % kWarpLanes);
    } else {
      combine_row<1>(rows, token, lane % kWarpLanes);
    }
  });
}

}  // namespace dsmoe::device
