#pragma once

#include "csrc_kernels/common/device_body.h"
#include "csrc_kernels/linear_cross_entropy/kernels.h"

/// cross_entropy on a GPU: a block per row. It reads the row once for its log sum exp and again if
/// it writes the gradient.
namespace dsmoe::device {

constexpr int kCrossEntropyLanes = 512;

template <typename T>
LaunchShape cross_entropy_shape(const CrossEntropyRows<T>& rows) {
  return {.n_blocks = rows.n_rows, .n_lanes = kCrossEntropyLanes};
}

/// Greatest value and sum of exp(value - greatest).
template <typename W>
struct ScaledSum {
  W greatest;
  W sum;
};

struct JoinScaled {
  template <typename W>
  DSMOE_HD ScaledSum<W> operator()(const ScaledSum<W>& a, const ScaledSum<W>& b) const {
    const W greatest = a.greatest < b.greatest ? b.greatest : a.greatest;
    // A part without values has no greatest value.
    const W from_a = a.sum == W(0) ? W(0) : a.sum * std::exp(a.greatest - greatest);
    const W from_b = b.sum == W(0) ? W(0) : b.sum * std::exp(b.greatest - greatest);
    return {greatest, from_a + from_b};
  }
};

template <int V>
struct PackSize {
  static constexpr int value = V;
};

/// Calls f(PackSize<V>, i) for the lane's packs of a row of n elements, which may begin at any
/// address, and f(PackSize<1>, i) for its share of the elements before the first and after the last
/// pack.
template <typename T, typename F>
DSMOE_HD void for_lane(const T* row, int64_t n, int lane, int n_lanes, F f) {
  constexpr int V = kPackSize<T>;
  const auto misplaced = static_cast<int64_t>(reinterpret_cast<uintptr_t>(row) % 16 / sizeof(T));
  const int64_t before = misplaced == 0 ? 0 : V - misplaced;
  const int64_t head = before < n ? before : n;
  const int64_t tail = head + (n - head) / V * V;
  if (lane < head) f(PackSize<1>(), lane);
  for (int64_t i = head + int64_t{V} * lane; i < tail; i += int64_t{V} * n_lanes) {
    f(PackSize<V>(), i);
  }
  if (tail + lane < n) f(PackSize<1>(), tail + lane);
}

template <typename Context, typename T>
DSMOE_HD void cross_entropy_body(Context& ctx,
                                 const CrossEntropyRows<T>& rows,
                                 double grad_scale,
                                 double* losses) {
  using W = Wide<T>;
  const int64_t n = rows.vocab_size;
  T* row = rows.logits + ctx.block() * n;
  const int64_t target = rows.targets[ctx.block()];
  const auto joined = ctx.block_reduce(
      [&](int lane) {
        ScaledSum<W> part{-INFINITY, 0};
        for_lane(row, n, lane, ctx.n_lanes(), [&](auto size, int64_t i) {
          constexpr int V = decltype(size)::value;
          const auto pack = load_pack<V>(row + i);
          W greatest = load(pack.at[0]);
          for (int v = 1; v < V; ++v) {
            const W value = load(pack.at[v]);
            greatest = greatest < value ? value : greatest;
          }
          W sum = 0;
          for (int v = 0; v < V; ++v) sum += std::exp(load(pack.at[v]) - greatest);
          part = JoinScaled()(part, ScaledSum<W>{greatest, sum});
        });
        return part;
      },
      JoinScaled());
  const W shift = joined.greatest + std::log(joined.sum);
  const bool is_known = target >= 0 && target < n;
  ctx.lanes([&](int lane) {
    if (lane == 0 && !is_known) losses[ctx.block()] = NAN;
    if (lane == 0 && is_known && grad_scale == 0) {
      losses[ctx.block()] = static_cast<double>(shift - load(row[target]));
    }
    if (grad_scale == 0) return;
    const W scale = static_cast<W>(grad_scale);
    for_lane(row, n, lane, ctx.n_lanes(), [&](auto size, int64_t i) {
      constexpr int V = decltype(size)::value;
      auto pack = load_pack<V>(row + i);
      for (int v = 0; v < V; ++v) {
        const W value = load(pack.at[v]);
        const bool is_target = i + v == target;
        // The lane that overwrites the logit of the target reads it before.
        if (is_target) losses[ctx.block()] = static_cast<double>(shift - value);
        store(pack.at[v], (std::exp(value - shift) - (is_target ? W(1) : W(0))) * scale);
      }
      store_pack(row + i, pack);
    });
  });
}

}  // namespace dsmoe::device
