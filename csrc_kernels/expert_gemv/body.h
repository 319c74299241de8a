#pragma once

#include "csrc_kernels/common/device_body.h"
#include "csrc_kernels/expert_gemv/kernels.h"
#include "csrc_kernels/weighted_activation/body.h"

/// expert_gemv on a GPU: a warp reads one row of a weight once, for all tokens. What bounds
/// it is the memory that the selected experts' rows lie in.
namespace dsmoe::device {

constexpr int kGemvLanes = 256;
constexpr int kGemvWarps = kGemvLanes / kWarpLanes;

/// One sum for each token, of two products where there is a gate.
template <int N>
struct TokenSums {
  float up[N];
  float gate[N];
  DSMOE_HD TokenSums operator+(const TokenSums& other) const {
    TokenSums sums;
    for (int t = 0; t < N; ++t) {
      sums.up[t] = up[t] + other.up[t];
      sums.gate[t] = gate[t] + other.gate[t];
    }
    return sums;
  }
};

template <int N>
DSMOE_HD TokenSums<N> no_sums() {
  TokenSums<N> sums;
  for (int t = 0; t < N; ++t) sums.up[t] = sums.gate[t] = 0;
  return sums;
}

template <typename T>
LaunchShape expert_gemv_hidden_shape(const GemvHidden<T>& args) {
  return {.n_blocks = blocks_for(args.n_experts * args.width, kGemvWarps), .n_lanes = kGemvLanes};
}

/// Shared memory: the numbers of the selected experts, and a flag of each.
template <typename T>
LaunchShape expert_gemv_sum_shape(const GemvSum<T>& args) {
  return {.n_blocks = blocks_for(args.d_out, kGemvWarps),
          .n_lanes = kGemvLanes,
          .shared_bytes = (2 * args.n_experts + 1) * static_cast<int64_t>(sizeof(int))};
}

DSMOE_HD inline bool any_selects(const float* weights,
                                 int64_t n_tokens,
                                 int64_t n_experts,
                                 int64_t expert) {
  bool any = false;
  for (int64_t t = 0; t < n_tokens; ++t) any = any || weights[t * n_experts + expert] != 0.0F;
  return any;
}

// The lane's part of the products of one row of up, and of gate, with every token.
template <int V, int N, typename T>
DSMOE_HD TokenSums<N> row_products(const GemvHidden<T>& args, int64_t row, int lane) {
  auto sums = no_sums<N>();
  const bool gated = args.gate != nullptr;
  const T* up = args.up + row * args.d_in;
  const T* gate = gated ? args.gate + row * args.d_in : up;
  for (int64_t i = int64_t{V} * lane; i < args.d_in; i += int64_t{V} * kWarpLanes) {
    const auto u = load_pack<V>(up + i);
    const auto g = load_pack<V>(gate + i);
    for (int t = 0; t < N; ++t) {
      if (t >= args.n_tokens) break;
      const auto x = load_pack<V>(args.x + t * args.d_in + i);
      for (int v = 0; v < V; ++v) {
        sums.up[t] += load(u.at[v]) * load(x.at[v]);
        if (gated) sums.gate[t] += load(g.at[v]) * load(x.at[v]);
      }
    }
  }
  return sums;
}

DSMOE_HD inline float activated(Activation activation, float up, float gate) {
  switch (activation) {
    case Activation::kIdentity:
      return up;
    case Activation::kGelu:
      return activate<Activation::kGelu>(up).value;
    case Activation::kGeluTanh:
      return activate<Activation::kGeluTanh>(up).value;
    case Activation::kSwiglu:
      return activate<Activation::kSwiglu>(gate).value * up;
    case Activation::kSilu:
      return activate<Activation::kSilu>(up).value;
    case Activation::kQuickGelu:
      return activate<Activation::kQuickGelu>(up).value;
    case Activation::kReluSquared:
      return activate<Activation::kReluSquared>(up).value;
  }
  return up;
}

/// N: 1, or kMostGemvTokens for any number of tokens.
template <int N, typename Context, typename T>
DSMOE_HD void expert_gemv_hidden_body(Context& ctx,
                                      Activation activation,
                                      const GemvHidden<T>& args) {
  constexpr int V = kPackSize<T>;
  const int64_t n_rows = args.n_experts * args.width;
  const int64_t first = ctx.block() * kGemvWarps;
  const bool packs = is_packable<V>(args.x, args.d_in) && is_packable<V>(args.up, args.d_in) &&
                     is_packable<V>(args.gate, args.d_in);
  ctx.warp_reduce(
      [&](int lane) {
        const int64_t row = first + lane / kWarpLanes;
        if (row >= n_rows ||
            (args.weights != nullptr &&
             !any_selects(args.weights, args.n_tokens, args.n_experts, row / args.width))) {
          return no_sums<N>();
        }
        return packs ? row_products<V, N>(args, row, lane % kWarpLanes)
                     : row_products<1, N>(args, row, lane % kWarpLanes);
      },
      Add(),
      [&](int warp, const TokenSums<N>& sums) {
        const int64_t row = first + warp;
        if (row >= n_rows) return;
        const float up_bias = args.up_bias == nullptr ? 0.0F : args.up_bias[row];
        const float gate_bias = args.gate_bias == nullptr ? 0.0F : args.gate_bias[row];
        for (int t = 0; t < N; ++t) {
          if (t >= args.n_tokens) break;
          const float weight =
              args.weights == nullptr ? 1.0F : args.weights[t * args.n_experts + row / args.width];
          const float value =
              weight == 0.0F
                  ? 0.0F
                  : activated(activation, sums.up[t] + up_bias, sums.gate[t] + gate_bias);
          store(args.hidden[t * n_rows + row], args.weighted ? value * weight : value);
        }
      });
}

// The lane's part of the products of one row of down with every token, over the listed experts.
template <int V, int N, typename T>
DSMOE_HD TokenSums<N> selected_products(const GemvSum<T>& args,
                                        const int* experts,
                                        int n_listed,
                                        int64_t row,
                                        int lane) {
  auto sums = no_sums<N>();
  const int64_t d_wide = args.n_experts * args.width;
  for (int i = 0; i < n_listed; ++i) {
    const int64_t begin = experts[i] * args.width;
    const T* down = args.down + row * d_wide + begin;
    for (int64_t f = int64_t{V} * lane; f < args.width; f += int64_t{V} * kWarpLanes) {
      const auto d = load_pack<V>(down + f);
      for (int t = 0; t < N; ++t) {
        if (t >= args.n_tokens) break;
        const auto h = load_pack<V>(args.hidden + t * d_wide + begin + f);
        float sum = 0;
        for (int v = 0; v < V; ++v) sum += load(d.at[v]) * load(h.at[v]);
        sums.up[t] += args.weighted ? sum * args.weights[t * args.n_experts + experts[i]] : sum;
      }
    }
  }
  return sums;
}

template <int N, typename Context, typename T>
DSMOE_HD void expert_gemv_sum_body(Context& ctx, const GemvSum<T>& args) {
  constexpr int V = kPackSize<T>;
  int* listed = ctx.template shared<int>();  // [E], then how many
  int* flags = listed + args.n_experts + 1;  // [E]
  ctx.lanes([&](int lane) {
    for (int64_t e = lane; e < args.n_experts; e += ctx.n_lanes()) {
      flags[e] = any_selects(args.weights, args.n_tokens, args.n_experts, e) ? 1 : 0;
    }
  });
  ctx.sync();
  ctx.lanes([&](int lane) {
    // An expert's place is the number of those before it.
    for (int64_t e = lane; e < args.n_experts; e += ctx.n_lanes()) {
      int place = 0;
      for (int64_t i = 0; i < e; ++i) place += flags[i];
      if (flags[e] != 0) listed[place] = static_cast<int>(e);
      if (e == args.n_experts - 1) listed[args.n_experts] = place + flags[e];
    }
  });
  ctx.sync();
  const int64_t first = ctx.block() * kGemvWarps;
  const bool packs =
      is_packable<V>(args.hidden, args.width) && is_packable<V>(args.down, args.width);
  ctx.warp_reduce(
      [&](int lane) {
        const int64_t row = first + lane / kWarpLanes;
        const int n_listed = listed[args.n_experts];
        if (row >= args.d_out) return no_sums<N>();
        return packs ? selected_products<V, N>(args, listed, n_listed, row, lane % kWarpLanes)
                     : selected_products<1, N>(args, listed, n_listed, row, lane % kWarpLanes);
      },
      Add(),
      [&](int warp, const TokenSums<N>& sums) {
        const int64_t row = first + warp;
        if (row >= args.d_out) return;
        const float bias = args.bias == nullptr ? 0.0F : args.bias[row];
        for (int t = 0; t < N; ++t) {
          if (t < args.n_tokens) store(args.y[t * args.d_out + row], sums.up[t] + bias);
        }
      });
}

}  // namespace dsmoe::device
