#pragma once

#include "csrc_kernels/router/body.h"

/// A router's gradients on a GPU: a block per chunk of rows and 64 columns. A lane keeps to its
/// column, where it holds the features of 16 rows (8 in float64) and their gradients in registers,
/// so that every weight and every gradient of a logit that it reads serves all of these rows.
/// Groups of 64 lanes take other rows of the chunk and add up their sums in the end.
namespace dsmoe::device {

constexpr int kRouteGradLanes = 256;
constexpr int kRouteColumns = static_cast<int>(kRouterColumns);
constexpr int64_t kRouteGradBytes = 47 << 10;
template <typename W>
constexpr int kRouteGradRows = 64 / static_cast<int>(sizeof(W));  // of a lane
/// Gradients of a group's rows for one expert, padded so that experts begin in different banks.
template <typename W>
constexpr int kRouteGradStride = kRouteGradRows<W> + kPackSize<W>;

/// How a block divides its shared memory: for each group of lanes sums [E, kRouteColumns], unless
/// the partial sums of the result serve instead, gradients of logits [E, kRouteGradStride] and
/// [kRouteColumns] parts of sums over experts.
struct RouteGroups {
  int n_groups;
  bool sums_in_shared;
};

template <typename W>
DSMOE_HD int64_t route_group_numbers(int64_t n_experts, bool sums_in_shared) {
  return n_experts * (kRouteGradStride<W> + (sums_in_shared ? kRouteColumns : 0)) + kRouteColumns;
}

template <typename W>
DSMOE_HD RouteGroups route_groups(int64_t n_experts) {
  const int64_t bytes = route_group_numbers<W>(n_experts, true) * static_cast<int64_t>(sizeof(W));
  for (int groups = kRouteGradLanes / kRouteColumns; groups >= 1; groups /= 2) {
    if (groups * bytes <= kRouteGradBytes) return {groups, true};
  }
  return {1, false};
}

template <typename T, typename W>
LaunchShape router_backward_shape(const RouterTable<T, W>& table) {
  const auto groups = route_groups<W>(table.n_experts);
  const int64_t numbers =
      groups.n_groups * route_group_numbers<W>(table.n_experts, groups.sums_in_shared);
  return {.n_blocks = router_device_chunks(table.n_rows, table.width) *
                      blocks_for(table.width, kRouteColumns),
          .n_lanes = groups.n_groups * kRouteColumns,
          .shared_bytes = numbers * static_cast<int64_t>(sizeof(W))};
}

/// The rows of a block's chunk and the shared memory of its groups.
template <typename W>
struct RouteChunk {
  int64_t begin;
  int64_t end;
  W* grads;  ///< [n_groups, E, kRouteGradStride]: of the logits
  W* means;  ///< [n_lanes]: parts of a row's sum of probability times its gradient
};

/// Lanes that share the sum over a row's experts.
template <typename W>
constexpr int kRouteParts = kRouteColumns / kRouteGradRows<W>;

// The lane's part of its row's sum, for rows from `first` on.
template <typename T, typename W>
DSMOE_HD void fill_route_means(const RouterTable<T, W>& table,
                               const RouterGradients<T, W>& gradients,
                               const RouteChunk<W>& chunk,
                               int64_t first,
                               int lane) {
  const int64_t row = first + lane / kRouteParts<W>;
  W mean = 0;
  if (row < chunk.end) {
    const int64_t begin = row * table.n_experts;
    DSMOE_KEEP_LOOP
    for (int64_t e = lane % kRouteParts<W>; e < table.n_experts; e += kRouteParts<W>) {
      mean += table.probs[begin + e] * gradients.grad_probs[begin + e];
    }
  }
  chunk.means[lane] = mean;
}

template <typename T, typename W>
DSMOE_HD W route_logit_gradient(const RouterTable<T, W>& table,
                                const RouterGradients<T, W>& gradients,
                                const W* means,
                                int64_t at) {
  const W own = gradients.grad_logits == nullptr ? W(0) : gradients.grad_logits[at];
  if (gradients.grad_probs == nullptr) return own;
  const W prob = table.probs[at];
  if (table.sigmoid) return own + gradients.grad_probs[at] * prob * (W(1) - prob);
  W mean = 0;
  for (int i = 0; i < kRouteParts<W>; ++i) mean += means[i];
  return own + prob * (gradients.grad_probs[at] - mean);
}

// Gradients of the logits of n_rows rows from `first` on, zero for those beyond the chunk.
template <typename Context, typename T, typename W>
DSMOE_HD void fill_route_grads(Context& ctx,
                               const RouterTable<T, W>& table,
                               const RouterGradients<T, W>& gradients,
                               const RouteChunk<W>& chunk,
                               int64_t first) {
  constexpr int R = kRouteGradRows<W>;
  const int n = static_cast<int>(table.n_experts);
  const int n_rows = ctx.n_lanes() / kRouteParts<W>;
  if (gradients.grad_probs != nullptr && !table.sigmoid) {
    ctx.lanes([&](int lane) { fill_route_means(table, gradients, chunk, first, lane); });
    ctx.sync();
  }
  ctx.lanes([&](int lane) {
    DSMOE_KEEP_LOOP
    for (int i = lane; i < n_rows * n; i += ctx.n_lanes()) {
      const int row = i / n;
      const W grad = first + row < chunk.end
                         ? route_logit_gradient(
                               table, gradients, chunk.means + row * kRouteParts<W>, first * n + i)
                         : W(0);
      chunk.grads[(row / R * n + i % n) * kRouteGradStride<W> + row % R] = grad;
    }
  });
  ctx.sync();
}

template <typename T, typename W>
DSMOE_HD void store_route_gradient(const RouterTable<T, W>& table,
                                   T* grad_x,
                                   int64_t row,
                                   int64_t column,
                                   W grad) {
  if (!table.gated) return store(grad_x[row * table.width + column], grad);
  const int64_t at = 2 * row * table.width + column;
  const auto activated = silu(W(load(table.x[at])));
  const W up = load(table.x[at + table.width]);
  store(grad_x[at], grad * up * activated.slope);
  store(grad_x[at + table.width], grad * activated.value);
}

// One column of a group's rows from `first` on; sums of the experts lie `stride` apart.
template <typename T, typename W>
DSMOE_HD void route_column_gradients(const RouterTable<T, W>& table,
                                     T* grad_x,
                                     const W* grads,
                                     int64_t first,
                                     int64_t end,
                                     int64_t column,
                                     W* sums,
                                     int64_t stride) {
  constexpr int R = kRouteGradRows<W>;
  constexpr int V = kPackSize<W>;
  W features[R], own[R];
  for (int r = 0; r < R; ++r) {
    features[r] = first + r < end ? route_features<1>(table, first + r, column).at[0] : W(0);
    own[r] = 0;
  }
  for (int64_t e = 0; e < table.n_experts; ++e) {
    const W weight = table.weight[e * table.width + column];
    W sum = sums[e * stride];
    for (int p = 0; p < R; p += V) {
      const auto grad = load_pack<V>(grads + e * kRouteGradStride<W> + p);
      for (int v = 0; v < V; ++v) {
        sum += grad.at[v] * features[p + v];
        own[p + v] += grad.at[v] * weight;
      }
    }
    sums[e * stride] = sum;
  }
  for (int r = 0; r < R; ++r) {
    if (first + r < end) store_route_gradient(table, grad_x, first + r, column, own[r]);
  }
}

template <typename Context, typename T, typename W>
DSMOE_HD void router_backward_body(Context& ctx,
                                   const RouterTable<T, W>& table,
                                   const RouterGradients<T, W>& gradients) {
  constexpr int R = kRouteGradRows<W>;
  const int64_t n = table.n_experts;
  const auto groups = route_groups<W>(n);
  const int64_t n_tiles = blocks_for(table.width, kRouteColumns);
  const int64_t n_chunks = ctx.n_blocks() / n_tiles;
  const int64_t chunk_index = ctx.block() / n_tiles;
  const int64_t first_column = ctx.block() % n_tiles * kRouteColumns;
  W* partial = gradients.partial_weight + chunk_index * n * table.width + first_column;  // [E, K]
  W* shared = ctx.template shared<W>();
  W* grads = groups.sums_in_shared ? shared + groups.n_groups * n * kRouteColumns : shared;
  const RouteChunk<W> chunk{.begin = table.n_rows * chunk_index / n_chunks,
                            .end = table.n_rows * (chunk_index + 1) / n_chunks,
                            .grads = grads,
                            .means = grads + groups.n_groups * n * kRouteGradStride<W>};
  const int64_t stride = groups.sums_in_shared ? kRouteColumns : table.width;
  const auto sums_of = [&](int lane) {
    const int64_t group = groups.sums_in_shared ? lane / kRouteColumns * n * kRouteColumns : 0;
    return (groups.sums_in_shared ? shared : partial) + group + lane % kRouteColumns;
  };
  ctx.lanes([&](int lane) {
    if (first_column + lane % kRouteColumns >= table.width) return;
    DSMOE_KEEP_LOOP
    for (int64_t e = 0; e < n; ++e) sums_of(lane)[e * stride] = 0;
  });
  ctx.sync();  // where there are no rows, the sums below read these zeros
  for (int64_t row = chunk.begin; row < chunk.end; row += groups.n_groups * R) {
    fill_route_grads(ctx, table, gradients, chunk, row);
    ctx.lanes([&](int lane) {
      const int64_t column = first_column + lane % kRouteColumns;
      const int group = lane / kRouteColumns;
      if (column >= table.width) return;
      route_column_gradients(table,
                             gradients.grad_x,
                             chunk.grads + group * n * kRouteGradStride<W>,
                             row + int64_t{group} * R,
                             chunk.end,
                             column,
                             sums_of(lane),
                             stride);
    });
    ctx.sync();
  }
  if (!groups.sums_in_shared) return;
  ctx.lanes([&](int lane) {
    const int column = lane % kRouteColumns;
    if (first_column + column >= table.width) return;
    DSMOE_KEEP_LOOP
    for (int64_t e = lane / kRouteColumns; e < n; e += groups.n_groups) {
      W sum = 0;
      for (int g = 0; g < groups.n_groups; ++g) sum += shared[(g * n + e) * kRouteColumns + column];
      partial[e * table.width + column] = sum;
    }
  });
}

}  // namespace dsmoe::device
