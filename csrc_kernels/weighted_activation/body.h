#pragma once

#include "csrc_kernels/common/device_body.h"
#include "csrc_kernels/weighted_activation/kernels.h"

/// weighted_activation on a GPU: one warp for the block of one row and one expert, so that the
/// gradient of its weight is a sum within a warp.
namespace dsmoe::device {

template <typename W>
struct ValueAndSlope {
  W value;
  W slope;
};

template <typename W>
DSMOE_HD inline ValueAndSlope<W> silu(W x) {
  const W s = W(1) / (W(1) + std::exp(-x));
  return {x * s, s * (W(1) + x * (W(1) - s))};
}

template <Activation kActivation, typename W>
DSMOE_HD inline ValueAndSlope<W> activate(W x) {
  if constexpr (kActivation == Activation::kGelu) {
    const W cdf = W(0.5) * (W(1) + std::erf(x * W(0.70710678118654752)));
    const W density = W(0.39894228040143268) * std::exp(W(-0.5) * x * x);
    return {x * cdf, cdf + x * density};
  } else if constexpr (kActivation == Activation::kGeluTanh) {
    constexpr W kScale = W(0.79788456080286536);  // sqrt(2 / pi)
    constexpr W kCubic = W(0.044715);
    const W t = std::tanh(kScale * (x + kCubic * x * x * x));
    const W inner = kScale * (W(1) + W(3) * kCubic * x * x);
    return {W(0.5) * x * (W(1) + t), W(0.5) * (W(1) + t) + W(0.5) * x * (W(1) - t * t) * inner};
  } else if constexpr (kActivation == Activation::kSwiglu || kActivation == Activation::kSilu) {
    return silu(x);
  } else if constexpr (kActivation == Activation::kQuickGelu) {
    const auto scaled = silu(W(1.702) * x);
    return {scaled.value / W(1.702), scaled.slope};
  } else if constexpr (kActivation == Activation::kReluSquared) {
    const W positive = x > W(0) ? x : W(0);
    return {positive * positive, W(2) * positive};
  } else {
    return {x, W(1)};
  }
}

constexpr int kWeightedActivationLanes = 256;

template <typename T, typename W>
LaunchShape weighted_activation_shape(const WeightedActivationRows<T, W>& rows) {
  constexpr int kPairsPerBlock = kWeightedActivationLanes / kWarpLanes;
  const int64_t n_pairs = rows.width == 0 ? 0 : rows.n_rows * rows.n_experts;
  return {.n_blocks = blocks_for(n_pairs, kPairsPerBlock), .n_lanes = kWeightedActivationLanes};
}

template <int V, Activation kActivation, typename T, typename W>
DSMOE_HD void fill_hidden(const WeightedActivationRows<T, W>& rows, int64_t pair, int lane) {
  constexpr bool kGated = kActivation == Activation::kSwiglu;
  const W weight = rows.weights == nullptr ? W(1) : rows.weights[pair];
  const int64_t begin = pair * rows.width;
  for (int64_t i = begin + int64_t{V} * lane; i < begin + rows.width;
       i += int64_t{V} * kWarpLanes) {
    const auto up = load_pack<V>(rows.up + i);
    const auto gate = kGated ? load_pack<V>(rows.gate + i) : up;
    Pack<T, V> hidden;
    for (int v = 0; v < V; ++v) {
      const W value = activate<kActivation>(W(load(gate.at[v]))).value;
      store(hidden.at[v], weight * (kGated ? value * load(up.at[v]) : value));
    }
    store_pack(rows.hidden + i, hidden);
  }
}

// Returns the lane's part of the gradient of the pair's weight.
template <int V, Activation kActivation, typename T, typename W>
DSMOE_HD W fill_gradients(const WeightedActivationRows<T, W>& rows,
                          const WeightedActivationGradients<T, W>& gradients,
                          int64_t pair,
                          int lane) {
  constexpr bool kGated = kActivation == Activation::kSwiglu;
  const W weight = rows.weights == nullptr ? W(1) : rows.weights[pair];
  const int64_t begin = pair * rows.width;
  W sum = 0;
  for (int64_t i = begin + int64_t{V} * lane; i < begin + rows.width;
       i += int64_t{V} * kWarpLanes) {
    const auto up = load_pack<V>(rows.up + i);
    const auto gate = kGated ? load_pack<V>(rows.gate + i) : up;
    const auto grad = load_pack<V>(gradients.grad_hidden + i);
    Pack<T, V> hidden, grad_up, grad_gate;
    for (int v = 0; v < V; ++v) {
      const W g = load(grad.at[v]);
      const W u = load(up.at[v]);
      const auto activated = activate<kActivation>(W(load(gate.at[v])));
      const W value = kGated ? activated.value * u : activated.value;
      if constexpr (kGated) store(grad_gate.at[v], g * weight * u * activated.slope);
      store(grad_up.at[v], g * weight * (kGated ? activated.value : activated.slope));
      store(hidden.at[v], value * weight);
      sum += g * value;
    }
    store_pack(rows.hidden + i, hidden);
    store_pack(gradients.grad_up + i, grad_up);
    if constexpr (kGated) store_pack(gradients.grad_gate + i, grad_gate);
  }
  return sum;
}

// Whether every array that is read or written begins where packs may.
template <int V, typename T, typename W>
DSMOE_HD bool takes_packs(const WeightedActivationRows<T, W>& rows) {
  return is_packable<V>(rows.up, rows.width) && is_packable<V>(rows.gate, rows.width) &&
         is_packable<V>(rows.hidden, rows.width);
}

template <Activation kActivation, typename Context, typename T, typename W>
DSMOE_HD void weighted_activation_body(Context& ctx, const WeightedActivationRows<T, W>& rows) {
  constexpr int V = kPackSize<T>;
  const bool packs = takes_packs<V>(rows);
  ctx.lanes([&](int lane) {
    const int64_t pair = (ctx.block() * ctx.n_lanes() + lane) / kWarpLanes;
    if (pair >= rows.n_rows * rows.n_experts) return;
    if (packs) {
      fill_hidden<V, kActivation>(rows, pair, lane % kWarpLanes);
    } else {
      fill_hidden<1, kActivation>(rows, pair, lane % kWarpLanes);
    }
  });
}

template <Activation kActivation, typename Context, typename T, typename W>
DSMOE_HD void weighted_activation_backward_body(
    Context& ctx,
    const WeightedActivationRows<T, W>& rows,
    const WeightedActivationGradients<T, W>& gradients) {
  constexpr int V = kPackSize<T>;
  const bool packs = takes_packs<V>(rows) && is_packable<V>(gradients.grad_hidden, rows.width) &&
                     is_packable<V>(gradients.grad_up, rows.width) &&
                     is_packable<V>(gradients.grad_gate, rows.width);
  const int64_t n_pairs = rows.n_rows * rows.n_experts;
  const int64_t first = ctx.block() * (ctx.n_lanes() / kWarpLanes);
  ctx.warp_reduce(
      [&](int lane) {
        const int64_t pair = first + lane / kWarpLanes;
        if (pair >= n_pairs) return W(0);
        return packs ? fill_gradients<V, kActivation>(rows, gradients, pair, lane % kWarpLanes)
                     : fill_gradients<1, kActivation>(rows, gradients, pair, lane % kWarpLanes);
      },
      Add(),
      [&](int warp, W sum) {
        if (first + warp < n_pairs && gradients.grad_weights != nullptr) {
          gradients.grad_weights[first + warp] = sum;
        }
      });
}

}  // namespace dsmoe::device
