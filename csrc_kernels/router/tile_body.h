#pragma once

#include "csrc_kernels/router/body.h"

/// A router's logits and probabilities on a GPU for many rows: a block per 32 of them, which tiles
/// of features and weights in shared memory serve together, so that the weight is read once for
/// all.
namespace dsmoe::device {

constexpr int kRouteTileLanes = 128;
constexpr int kRouteTileRows = 32;
constexpr int kRouteTileExperts = 64;  // more go in turn
constexpr int kRouteLaneRows = 4;      // sums of a lane: for 4 rows and 2 experts
template <typename W>
constexpr int kRouteTile = 256 / static_cast<int>(sizeof(W));  // columns
/// Rows of a tile begin in different banks of shared memory.
template <typename W>
constexpr int kRouteStride = kRouteTile<W> + kPackSize<W>;

/// Shared memory: tiles of features and of weights, sums.
template <typename T, typename W>
LaunchShape router_tile_shape(const RouterTable<T, W>& table) {
  constexpr int64_t kNumbers =
      (kRouteTileRows + kRouteTileExperts) * kRouteStride<W> + kRouteTileRows * kRouteTileExperts;
  return {.n_blocks = blocks_for(table.n_rows, kRouteTileRows),
          .n_lanes = kRouteTileLanes,
          .shared_bytes = kNumbers * static_cast<int64_t>(sizeof(W))};
}

/// Columns of a tile that are beyond the last one, and rows, are zero.
template <int V, typename W, typename F>
DSMOE_HD void fill_route_tile(W* tile, int n_rows, int lane, F numbers) {
  constexpr int kPacks = kRouteTile<W> / V;
  for (int i = lane; i < n_rows * kPacks; i += kRouteTileLanes) {
    const int column = i % kPacks * V;
    store_pack(tile + i / kPacks * kRouteStride<W> + column, numbers(i / kPacks, column));
  }
}

// Tiles of the block's features and of the weights of n experts from column `first` on.
template <int V, typename T, typename W>
DSMOE_HD void fill_route_tiles(const RouterTable<T, W>& table,
                               int64_t first_row,
                               int64_t first_expert,
                               int64_t first,
                               int n_experts,
                               W* tiles,
                               int lane) {
  fill_route_tile<V>(tiles, kRouteTileRows, lane, [&](int row, int column) {
    const bool has = first_row + row < table.n_rows && first + column < table.width;
    return has ? route_features<V>(table, first_row + row, first + column) : Pack<W, V>{};
  });
  W* weights = tiles + kRouteTileRows * kRouteStride<W>;
  fill_route_tile<V>(weights, n_experts, lane, [&](int row, int column) {
    const int64_t expert = first_expert + row;
    const bool has = expert < table.n_experts && first + column < table.width;
    return has ? load_pack<V>(table.weight + expert * table.width + first + column) : Pack<W, V>{};
  });
}

// Adds the products of the tiles for every 8th row and the experts `expert` and `expert + half`.
template <typename W>
DSMOE_HD void add_route_products(const W* tiles, W* sums, int row, int expert, int half) {
  constexpr int V = kPackSize<W>;
  constexpr int kStep = kRouteTileRows / kRouteLaneRows;
  const W* features = tiles + row * kRouteStride<W>;
  const W* weights = tiles + (kRouteTileRows + expert) * kRouteStride<W>;
  W* to = sums + row * kRouteTileExperts + expert;
  W own[kRouteLaneRows][2];
  for (int r = 0; r < kRouteLaneRows; ++r) {
    for (int e = 0; e < 2; ++e) own[r][e] = to[r * kStep * kRouteTileExperts + e * half];
  }
#ifdef __CUDA_ARCH__
#pragma unroll 2
#endif
  for (int k = 0; k < kRouteTile<W>; k += V) {
    const auto a = load_pack<V>(weights + k);
    const auto b = load_pack<V>(weights + half * kRouteStride<W> + k);
    for (int r = 0; r < kRouteLaneRows; ++r) {
      const auto x = load_pack<V>(features + r * kStep * kRouteStride<W> + k);
      for (int v = 0; v < V; ++v) {
        own[r][0] += x.at[v] * a.at[v];
        own[r][1] += x.at[v] * b.at[v];
      }
    }
  }
  for (int r = 0; r < kRouteLaneRows; ++r) {
    for (int e = 0; e < 2; ++e) to[r * kStep * kRouteTileExperts + e * half] = own[r][e];
  }
}

// Logits of up to kRouteTileExperts experts of the block's rows.
template <int V, typename Context, typename T, typename W>
DSMOE_HD void route_tile_logits(Context& ctx, const RouterTable<T, W>& table, int64_t first) {
  constexpr int kSteps = kRouteTileRows / kRouteLaneRows;
  W* tiles = ctx.template shared<W>();
  W* sums = tiles + (kRouteTileRows + kRouteTileExperts) * kRouteStride<W>;
  const int64_t first_row = ctx.block() * kRouteTileRows;
  const int64_t left = table.n_experts - first;
  const int n = left < kRouteTileExperts ? static_cast<int>(left) : kRouteTileExperts;
  const int half = (n + 1) / 2;
  for (int64_t column = 0; column < table.width; column += kRouteTile<W>) {
    ctx.lanes([&](int lane) {
      fill_route_tiles<V>(table, first_row, first, column, 2 * half, tiles, lane);
      if (column > 0) return;
      for (int i = lane; i < kRouteTileRows * kRouteTileExperts; i += kRouteTileLanes) sums[i] = 0;
    });
    ctx.sync();
    ctx.lanes([&](int lane) {
      for (int i = lane; i < kSteps * half; i += kRouteTileLanes) {
        add_route_products(tiles, sums, i / half, i % half, half);
      }
    });
    ctx.sync();
  }
  ctx.lanes([&](int lane) {
    DSMOE_KEEP_LOOP
    for (int i = lane; i < kRouteTileRows * n; i += kRouteTileLanes) {
      const int64_t row = first_row + i / n;
      if (row >= table.n_rows) return;
      const W logit = sums[i / n * kRouteTileExperts + i % n];
      table.logits[row * table.n_experts + first + i % n] = logit;
      if (table.sigmoid) {
        table.probs[row * table.n_experts + first + i % n] = route_sigmoid(logit);
      }
    }
  });
  ctx.sync();
}

// Softmax of the block's rows: some lanes share a row, first for its greatest logit and the sum of
// powers.
template <typename Context, typename T, typename W>
DSMOE_HD void route_tile_softmax(Context& ctx, const RouterTable<T, W>& table) {
  constexpr int kParts = kRouteTileLanes / kRouteTileRows;
  const int64_t n = table.n_experts;
  const int64_t first_row = ctx.block() * kRouteTileRows;
  W* greatest = ctx.template shared<W>();  // [kRouteTileRows, kParts], then the rows' own
  W* sums = greatest + kRouteTileLanes;    // the same
  W* shifts = sums + kRouteTileLanes;      // [kRouteTileRows]
  W* scales = shifts + kRouteTileRows;     // [kRouteTileRows]
  ctx.lanes([&](int lane) {
    const int64_t row = first_row + lane / kParts;
    if (row >= table.n_rows) return;
    const W* logits = table.logits + row * n;
    W most = -INFINITY;
    DSMOE_KEEP_LOOP
    for (int64_t e = lane % kParts; e < n; e += kParts) most = most < logits[e] ? logits[e] : most;
    W sum = 0;
    DSMOE_KEEP_LOOP
    for (int64_t e = lane % kParts; e < n; e += kParts) sum += std::exp(logits[e] - most);
    greatest[lane] = most;
    sums[lane] = sum;
  });
  ctx.sync();
  ctx.lanes([&](int lane) {
    if (lane >= kRouteTileRows || first_row + lane >= table.n_rows) return;
    W most = -INFINITY;
    for (int i = lane * kParts; i < (lane + 1) * kParts; ++i) {
      most = most < greatest[i] ? greatest[i] : most;
    }
    W sum = 0;
    for (int i = lane * kParts; i < (lane + 1) * kParts; ++i) {
      sum += sums[i] * std::exp(greatest[i] - most);
    }
    shifts[lane] = most;
    scales[lane] = W(1) / sum;
  });
  ctx.sync();
  ctx.lanes([&](int lane) {
    const int n_numbers = kRouteTileRows * static_cast<int>(n);
    DSMOE_KEEP_LOOP
    for (int i = lane; i < n_numbers; i += kRouteTileLanes) {
      const int row = i / static_cast<int>(n);
      if (first_row + row >= table.n_rows) return;
      const int64_t at = first_row * n + i;
      table.probs[at] = std::exp(table.logits[at] - shifts[row]) * scales[row];
    }
  });
}

template <typename Context, typename T, typename W>
DSMOE_HD void router_tile_body(Context& ctx, const RouterTable<T, W>& table) {
  const bool packs = route_takes_packs(table);
  for (int64_t first = 0; first < table.n_experts; first += kRouteTileExperts) {
    if (packs) {
      route_tile_logits<kPackSize<W>>(ctx, table, first);
    } else {
      route_tile_logits<1>(ctx, table, first);
    }
  }
  if (!table.sigmoid) route_tile_softmax(ctx, table);
}

}  // namespace dsmoe::device
