#pragma once

#include "csrc_kernels/common/device_body.h"
#include "csrc_kernels/rotary/kernels.h"

/// rotary on a GPU: a lane rotates a pack of neighbouring pairs of one head.
namespace dsmoe::device {

constexpr int kRotaryLanes = 256;
constexpr int kRotaryPack = 4;

template <typename T, typename W>
DSMOE_HD int rotary_pack(const RotaryRows<T, W>& rows) {
  const bool packs =
      is_packable<kRotaryPack>(rows.x, rows.half) && is_packable<kRotaryPack>(rows.y, rows.half);
  return packs ? kRotaryPack : 1;
}

template <typename T, typename W>
LaunchShape rotary_shape(const RotaryRows<T, W>& rows) {
  const int64_t n_items = rows.n_rows * rows.n_heads * (rows.half / rotary_pack(rows));
  return {.n_blocks = blocks_for(n_items, kRotaryLanes), .n_lanes = kRotaryLanes};
}

template <int V, typename T, typename W>
DSMOE_HD void rotate_pack(const RotaryRows<T, W>& rows, W direction, int64_t item) {
  const int64_t per_head = rows.half / V;
  const int64_t head = item / per_head;  // over all rows
  if (head >= rows.n_rows * rows.n_heads) return;
  const int64_t i = item % per_head * V;
  const int64_t angle = head / rows.n_heads % rows.n_table_rows * rows.half + i;
  const int64_t first = head * 2 * rows.half + i;
  const auto a = load_pack<V>(rows.x + first);
  const auto b = load_pack<V>(rows.x + first + rows.half);
  Pack<T, V> y_first, y_second;
  for (int v = 0; v < V; ++v) {
    const W c = rows.cos[angle + v];
    const W s = direction * rows.sin[angle + v];
    store(y_first.at[v], load(a.at[v]) * c - load(b.at[v]) * s);
    store(y_second.at[v], load(b.at[v]) * c + load(a.at[v]) * s);
  }
  store_pack(rows.y + first, y_first);
  store_pack(rows.y + first + rows.half, y_second);
}

template <typename Context, typename T, typename W>
DSMOE_HD void rotary_body(Context& ctx, const RotaryRows<T, W>& rows, W direction) {
  const int pack = rotary_pack(rows);
  ctx.lanes([&](int lane) {
    const int64_t item = ctx.block() * ctx.n_lanes() + lane;
    if (pack == kRotaryPack) {
      rotate_pack<kRotaryPack>(rows, direction, item);
    } else {
      rotate_pack<1>(rows, direction, item);
    }
  });
}

}  // namespace dsmoe::device
