#pragma once

#include "csrc_kernels/common/device_body.h"
#include "csrc_kernels/residual_norm/kernels.h"

/// residual_norm on a GPU: the forward pass has a block per row, the backward pass n blocks for
/// every n-th row each. A lane stays in its own columns, so that sums over rows need no barrier.
namespace dsmoe::device {

constexpr int kNormLanes = 256;
constexpr int kNormPack = 4;                    // elements of a float32 access of 16 bytes
constexpr int64_t kNormSharedBytes = 46 << 10;  // sums over lanes take the rest of 48 KiB

template <typename T, typename W>
LaunchShape residual_norm_shape(const ResidualNormRows<T, W>& rows) {
  return {.n_blocks = rows.n_rows, .n_lanes = kNormLanes};
}

template <typename T, typename W>
LaunchShape residual_norm_backward_shape(const ResidualNormRows<T, W>& rows) {
  const int64_t sums = 2 * rows.width * static_cast<int64_t>(sizeof(W));
  return {.n_blocks = residual_norm_device_chunks(rows.n_rows),
          .n_lanes = kNormLanes,
          .shared_bytes = sums <= kNormSharedBytes ? sums : 0};
}

template <typename W>
struct TwoSums {
  W first;
  W second;
  DSMOE_HD TwoSums operator+(const TwoSums& other) const {
    return {first + other.first, second + other.second};
  }
};

// Calls f(i) for the columns of the lane, in packs of V that begin at i.
template <int V, typename F>
DSMOE_HD void for_columns(int64_t width, int lane, int n_lanes, F f) {
  for (int64_t i = int64_t{V} * lane; i < width; i += int64_t{V} * n_lanes) f(i);
}

template <typename T, typename W>
DSMOE_HD bool norm_takes_packs(const ResidualNormRows<T, W>& rows) {
  constexpr int V = kNormPack;
  return is_packable<V>(rows.x, rows.width) && is_packable<V>(rows.y, rows.width) &&
         is_packable<V>(rows.residual, rows.width) && is_packable<V>(rows.normed, rows.width);
}

template <int V, NormKind kKind, typename Context, typename T, typename W>
DSMOE_HD void norm_row(Context& ctx, const ResidualNormRows<T, W>& rows) {
  const int64_t n = rows.width;
  const int64_t begin = ctx.block() * n;
  const W* x = rows.y == nullptr ? rows.x + begin : rows.residual + begin;
  const W sum = ctx.block_reduce(
      [&](int lane) {
        W part = 0;
        for_columns<V>(n, lane, ctx.n_lanes(), [&](int64_t i) {
          auto values = load_pack<V>(rows.x + begin + i);
          if (rows.y != nullptr) {
            const auto y = load_pack<V>(rows.y + begin + i);
            for (int v = 0; v < V; ++v) values.at[v] += load(y.at[v]);
            store_pack(rows.residual + begin + i, values);
          }
          for (int v = 0; v < V; ++v) part += values.at[v];
        });
        return part;
      },
      Add());
  const W mean = kKind == NormKind::kLayerNorm ? sum / static_cast<W>(n) : W(0);
  const W squares = ctx.block_reduce(
      [&](int lane) {
        W part = 0;
        for_columns<V>(n, lane, ctx.n_lanes(), [&](int64_t i) {
          const auto values = load_pack<V>(x + i);
          for (int v = 0; v < V; ++v) part += (values.at[v] - mean) * (values.at[v] - mean);
        });
        return part;
      },
      Add());
  const W scale = W(1) / std::sqrt(squares / static_cast<W>(n) + rows.eps);
  ctx.lanes([&](int lane) {
    if (lane == 0) {
      rows.mean[ctx.block()] = mean;
      rows.scale[ctx.block()] = scale;
    }
    for_columns<V>(n, lane, ctx.n_lanes(), [&](int64_t i) {
      const auto values = load_pack<V>(x + i);
      Pack<T, V> normed;
      for (int v = 0; v < V; ++v) {
        const W bias = rows.bias == nullptr ? W(0) : rows.bias[i + v];
        store(normed.at[v], (values.at[v] - mean) * scale * rows.weight[i + v] + bias);
      }
      store_pack(rows.normed + begin + i, normed);
    });
  });
}

template <NormKind kKind, typename Context, typename T, typename W>
DSMOE_HD void residual_norm_body(Context& ctx, const ResidualNormRows<T, W>& rows) {
  if (norm_takes_packs(rows)) {
    norm_row<kNormPack, kKind>(ctx, rows);
  } else {
    norm_row<1, kKind>(ctx, rows);
  }
}

// Backward pass of one row; adds to the lane's columns of weight_sum and bias_sum.
template <int V, NormKind kKind, typename Context, typename T, typename W>
DSMOE_HD void norm_row_backward(Context& ctx,
                                const ResidualNormRows<T, W>& rows,
                                const ResidualNormGradients<T, W>& gradients,
                                int64_t row,
                                W* weight_sum,
                                W* bias_sum) {
  const int64_t n = rows.width;
  const int64_t begin = row * n;
  const W* x = (rows.y == nullptr ? rows.x : rows.residual) + begin;
  const T* grad = gradients.grad_normed + begin;
  const W mean = rows.mean[row];
  const W scale = rows.scale[row];
  // Sums of g = grad * weight, and of g times the normalised row.
  const auto sums = ctx.block_reduce(
      [&](int lane) {
        TwoSums<W> part{0, 0};
        for_columns<V>(n, lane, ctx.n_lanes(), [&](int64_t i) {
          const auto values = load_pack<V>(x + i);
          const auto grads = load_pack<V>(grad + i);
          for (int v = 0; v < V; ++v) {
            const W along = (values.at[v] - mean) * scale;
            const W g = load(grads.at[v]);
            weight_sum[i + v] += g * along;
            if (bias_sum != nullptr) bias_sum[i + v] += g;
            part.first += g * rows.weight[i + v];
            part.second += g * rows.weight[i + v] * along;
          }
        });
        return part;
      },
      Add());
  const W mean_g = kKind == NormKind::kLayerNorm ? sums.first / static_cast<W>(n) : W(0);
  const W mean_along = sums.second / static_cast<W>(n);
  ctx.lanes([&](int lane) {
    for_columns<V>(n, lane, ctx.n_lanes(), [&](int64_t i) {
      const auto values = load_pack<V>(x + i);
      const auto grads = load_pack<V>(grad + i);
      Pack<W, V> grad_x;
      Pack<T, V> grad_y;
      for (int v = 0; v < V; ++v) {
        const W along = (values.at[v] - mean) * scale;
        const W g = load(grads.at[v]) * rows.weight[i + v];
        grad_x.at[v] = scale * (g - mean_g - along * mean_along);
      }
      if (gradients.grad_residual != nullptr) {
        const auto passed = load_pack<V>(gradients.grad_residual + begin + i);
        for (int v = 0; v < V; ++v) grad_x.at[v] += passed.at[v];
      }
      store_pack(gradients.grad_x + begin + i, grad_x);
      for (int v = 0; v < V; ++v) store(grad_y.at[v], grad_x.at[v]);
      if (gradients.grad_y != nullptr) store_pack(gradients.grad_y + begin + i, grad_y);
    });
  });
}

template <NormKind kKind, typename Context, typename T, typename W>
DSMOE_HD void residual_norm_backward_body(Context& ctx,
                                          const ResidualNormRows<T, W>& rows,
                                          const ResidualNormGradients<T, W>& gradients) {
  const int64_t n = rows.width;
  W* weight_out = gradients.partial_weight + ctx.block() * n;
  W* bias_out =
      gradients.partial_bias == nullptr ? nullptr : gradients.partial_bias + ctx.block() * n;
  const bool in_shared = 2 * n * static_cast<int64_t>(sizeof(W)) <= kNormSharedBytes;
  W* shared = ctx.template shared<W>();
  W* weight_sum = in_shared ? shared : weight_out;
  W* bias_sum = bias_out == nullptr ? nullptr : in_shared ? shared + n : bias_out;
  // The same columns as in norm_row_backward.
  const bool packs = norm_takes_packs(rows) && is_packable<kNormPack>(gradients.grad_normed, n) &&
                     is_packable<kNormPack>(gradients.grad_residual, n) &&
                     is_packable<kNormPack>(gradients.grad_x, n) &&
                     is_packable<kNormPack>(gradients.grad_y, n);
  const auto own_columns = [&](int lane, auto f) {
    const int pack = packs ? kNormPack : 1;
    for (int64_t i = int64_t{pack} * lane; i < n; i += int64_t{pack} * ctx.n_lanes()) {
      for (int v = 0; v < pack; ++v) f(i + v);
    }
  };
  ctx.lanes([&](int lane) {
    own_columns(lane, [&](int64_t i) {
      weight_sum[i] = 0;
      if (bias_sum != nullptr) bias_sum[i] = 0;
    });
  });
  for (int64_t row = ctx.block(); row < rows.n_rows; row += ctx.n_blocks()) {
    if (packs) {
      norm_row_backward<kNormPack, kKind>(ctx, rows, gradients, row, weight_sum, bias_sum);
    } else {
      norm_row_backward<1, kKind>(ctx, rows, gradients, row, weight_sum, bias_sum);
    }
  }
  if (!in_shared) return;
  ctx.lanes([&](int lane) {
    own_columns(lane, [&](int64_t i) {
      weight_out[i] = weight_sum[i];
      if (bias_sum != nullptr) bias_out[i] = bias_sum[i];
    });
  });
}

}  // namespace dsmoe::device
