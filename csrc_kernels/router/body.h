#pragma once

#include "csrc_kernels/common/device_body.h"
#include "csrc_kernels/router/kernels.h"
#include "csrc_kernels/weighted_activation/body.h"

/// A router's logits and probabilities on a GPU for few rows: a block per row, whose warps read a
/// row of the weight each. router_tile_body.h is for many, router_backward_body.h has gradients.
namespace dsmoe::device {

constexpr int kRouteRowLanes = 1024;
constexpr int64_t kRouteFewRows = 256;
constexpr int64_t kRouteRowBytes = 40 << 10;  // of a row's features in shared memory

template <typename T, typename W>
bool routes_row_by_row(const RouterTable<T, W>& table) {
  return table.n_rows <= kRouteFewRows &&
         table.width * static_cast<int64_t>(sizeof(W)) <= kRouteRowBytes;
}

/// Shared memory: the features of the row.
template <typename T, typename W>
LaunchShape router_row_shape(const RouterTable<T, W>& table) {
  constexpr int64_t kMostWarps = kRouteRowLanes / kWarpLanes;
  constexpr int64_t kLeastWarps = 8;
  const int64_t n = table.n_experts;
  const int64_t n_warps = n < kLeastWarps ? kLeastWarps : n < kMostWarps ? n : kMostWarps;
  return {.n_blocks = table.n_rows,
          .n_lanes = static_cast<int>(n_warps) * kWarpLanes,
          .shared_bytes = table.width * static_cast<int64_t>(sizeof(W))};
}

/// V features of a row from column k on.
template <int V, typename T, typename W>
DSMOE_HD Pack<W, V> route_features(const RouterTable<T, W>& table, int64_t row, int64_t k) {
  Pack<W, V> features;
  if (!table.gated) {
    const auto x = load_pack<V>(table.x + row * table.width + k);
    for (int v = 0; v < V; ++v) features.at[v] = load(x.at[v]);
    return features;
  }
  const T* gates = table.x + 2 * row * table.width + k;
  const auto gate = load_pack<V>(gates);
  const auto up = load_pack<V>(gates + table.width);
  for (int v = 0; v < V; ++v) {
    features.at[v] = silu(W(load(gate.at[v]))).value * load(up.at[v]);
  }
  return features;
}

template <typename T, typename W>
DSMOE_HD bool route_takes_packs(const RouterTable<T, W>& table) {
  constexpr int V = kPackSize<W>;
  return is_packable<V>(table.x, table.width) && is_packable<V>(table.weight, table.width);
}

template <typename W>
DSMOE_HD W route_sigmoid(W logit) {
  return W(1) / (W(1) + std::exp(-logit));
}

// The lane's part of the product of a row's features and the weight of one expert.
template <int V, typename W>
DSMOE_HD W route_product(const W* features, const W* weight, int64_t width, int lane) {
  W sum = 0;
  for (int64_t k = int64_t{V} * lane; k < width; k += int64_t{V} * kWarpLanes) {
    const auto x = load_pack<V>(features + k);
    const auto w = load_pack<V>(weight + k);
    for (int v = 0; v < V; ++v) sum += x.at[v] * w.at[v];
  }
  return sum;
}

template <int V, typename Context, typename T, typename W>
DSMOE_HD void route_row_logits(Context& ctx, const RouterTable<T, W>& table) {
  W* features = ctx.template shared<W>();  // [K]
  W* logits = table.logits + ctx.block() * table.n_experts;
  ctx.lanes([&](int lane) {
    for (int64_t k = int64_t{V} * lane; k < table.width; k += int64_t{V} * ctx.n_lanes()) {
      store_pack(features + k, route_features<V>(table, ctx.block(), k));
    }
  });
  ctx.sync();
  const int n_warps = ctx.n_lanes() / kWarpLanes;
  for (int64_t first = 0; first < table.n_experts; first += n_warps) {
    ctx.warp_reduce(
        [&](int lane) {
          const int64_t expert = first + lane / kWarpLanes;
          if (expert >= table.n_experts) return W(0);
          const W* weight = table.weight + expert * table.width;
          return route_product<V>(features, weight, table.width, lane % kWarpLanes);
        },
        Add(),
        [&](int warp, W sum) {
          if (first + warp < table.n_experts) logits[first + warp] = sum;
        });
  }
  ctx.sync();
}

template <typename Context, typename T, typename W>
DSMOE_HD void router_row_body(Context& ctx, const RouterTable<T, W>& table) {
  if (route_takes_packs(table)) {
    route_row_logits<kPackSize<W>>(ctx, table);
  } else {
    route_row_logits<1>(ctx, table);
  }
  const int64_t n = table.n_experts;
  const W* logits = table.logits + ctx.block() * n;
  W* probs = table.probs + ctx.block() * n;
  if (table.sigmoid) {
    ctx.lanes([&](int lane) {
      for (int64_t e = lane; e < n; e += ctx.n_lanes()) probs[e] = route_sigmoid(logits[e]);
    });
    return;
  }
  const W greatest = ctx.block_reduce(
      [&](int lane) {
        W own = logits[0];
        for (int64_t e = lane; e < n; e += ctx.n_lanes()) own = own < logits[e] ? logits[e] : own;
        return own;
      },
      Max());
  const W sum = ctx.block_reduce(
      [&](int lane) {
        W own = 0;
        for (int64_t e = lane; e < n; e += ctx.n_lanes()) own += std::exp(logits[e] - greatest);
        return own;
      },
      Add());
  ctx.lanes([&](int lane) {
    for (int64_t e = lane; e < n; e += ctx.n_lanes()) {
      probs[e] = std::exp(logits[e] - greatest) / sum;
    }
  });
}

}  // namespace dsmoe::device
