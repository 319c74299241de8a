#pragma once

#include "csrc_kernels/common/device_body.h"
#include "csrc_kernels/decode_attention/kernels.h"

/// Steps of decode_tiles_body, for one block and its tile of keys.
namespace dsmoe::device {

constexpr int kDecodeLanes = 128;
constexpr int kDecodeHeads = 4;  // heads per load of a key or value

static_assert(kDecodeTile == kDecodeLanes);  // one lane per key

/// Heads that a block computes together: as many as shared memory has queries and scores for.
DSMOE_HD inline int64_t decode_heads_at_once(int64_t n_groups, int64_t head_dim) {
  constexpr int64_t kSharedFloats = (40 << 10) / 4;
  const int64_t fit = kSharedFloats / (head_dim + kDecodeTile + 2) / kDecodeHeads * kDecodeHeads;
  const int64_t padded = (n_groups + kDecodeHeads - 1) / kDecodeHeads * kDecodeHeads;
  return padded < fit ? padded : fit;
}

template <typename T>
DSMOE_HD int64_t decode_head(const DecodeAttention<T>& args, int64_t group, int64_t kv_head) {
  return args.by_expert ? group * args.n_kv_heads + kv_head : kv_head * args.n_groups + group;
}

template <typename T>
DSMOE_HD bool group_counts(const DecodeAttention<T>& args, int64_t b, int64_t group) {
  return args.weights == nullptr || args.weights[b * args.n_groups + group] != 0.0F;
}

/// The work of a block of decode_tiles_body.
struct DecodePlace {
  int64_t sequence;
  int64_t kv_head;
  int64_t first_key;
  int64_t n_keys;  // keys of the tile up to the position
};

/// Shared memory of the block.
struct DecodeShared {
  float* queries;   // [heads, head_dim]
  float* scores;    // [heads, kDecodeTile], then exp(score - greatest)
  float* greatest;  // [heads]
  float* sums;      // [heads]
  int* flags;       // [n_groups]
  int* listed;      // [n_groups], then their number
};

// Computes the scores of kDecodeHeads queries for the key of the lane.
template <int V, typename T>
DSMOE_HD void score_key(const DecodeAttention<T>& args,
                        const T* key,
                        const float* queries,
                        float* scores,
                        int lane) {
  float sums[kDecodeHeads] = {};
  for (int64_t d = 0; d < args.head_dim; d += V) {
    const auto k = load_pack<V>(key + d);
    for (int v = 0; v < V; ++v) {
      const float value = load(k.at[v]);
      for (int h = 0; h < kDecodeHeads; ++h) sums[h] += value * queries[h * args.head_dim + d + v];
    }
  }
  const float scale = 1.0F / std::sqrt(static_cast<float>(args.head_dim));
  for (int h = 0; h < kDecodeHeads; ++h) scores[h * kDecodeTile + lane] = sums[h] * scale;
}

// Loads the rotated queries of the listed groups first .. first + heads - 1; zeros past the last.
template <typename Context, typename T>
DSMOE_HD void load_queries(Context& ctx,
                           const DecodeAttention<T>& args,
                           const DecodePlace& place,
                           const DecodeShared& shared,
                           int64_t first,
                           int64_t heads) {
  // Indices within a block are 32 bits wide, for cheap divisions.
  const int half = static_cast<int>(args.head_dim / 2);
  const int n_items = static_cast<int>(heads) * half;
  const int64_t n_heads = args.n_kv_heads * args.n_groups;
  ctx.lanes([&](int lane) {
    for (int i = lane; i < n_items; i += ctx.n_lanes()) {
      const int slot = i / half;
      const int d = i % half;
      float* query = shared.queries + slot * args.head_dim + d;
      query[0] = query[half] = 0;
      if (first + slot >= shared.listed[args.n_groups]) continue;
      const int64_t head = decode_head(args, shared.listed[first + slot], place.kv_head);
      const T* q = args.q + (place.sequence * n_heads + head) * args.head_dim + d;
      const float c = args.cos == nullptr ? 1.0F : args.cos[place.sequence * half + d];
      const float s = args.cos == nullptr ? 0.0F : args.sin[place.sequence * half + d];
      query[0] = load(q[0]) * c - load(q[half]) * s;
      query[half] = load(q[half]) * c + load(q[0]) * s;
    }
  });
}

// Lists the groups with nonzero weight, in order.
template <typename Context, typename T>
DSMOE_HD void list_groups(Context& ctx,
                          const DecodeAttention<T>& args,
                          const DecodePlace& place,
                          const DecodeShared& shared) {
  ctx.lanes([&](int lane) {
    for (int64_t g = lane; g < args.n_groups; g += ctx.n_lanes()) {
      shared.flags[g] = group_counts(args, place.sequence, g) ? 1 : 0;
    }
  });
  ctx.sync();
  ctx.lanes([&](int lane) {
    for (int64_t g = lane; g < args.n_groups; g += ctx.n_lanes()) {
      int before = 0;
      DSMOE_KEEP_LOOP
      for (int64_t i = 0; i < g; ++i) before += shared.flags[i];
      if (shared.flags[g] != 0) shared.listed[before] = static_cast<int>(g);
      if (g == args.n_groups - 1) shared.listed[args.n_groups] = before + shared.flags[g];
    }
  });
  ctx.sync();
}

template <typename Context, typename T>
DSMOE_HD void score_tile(Context& ctx,
                         const DecodeAttention<T>& args,
                         const DecodePlace& place,
                         const DecodeShared& shared,
                         const T* keys,
                         int64_t heads) {
  constexpr int V = kPackSize<T>;
  const bool packs = is_packable<V>(args.keys, args.head_dim);
  ctx.lanes([&](int lane) {
    if (lane >= place.n_keys) return;
    const T* key = keys + lane * args.head_dim;
    for (int64_t h = 0; h < heads; h += kDecodeHeads) {
      const float* queries = shared.queries + h * args.head_dim;
      float* scores = shared.scores + h * kDecodeTile;
      if (packs) {
        score_key<V>(args, key, queries, scores, lane);
      } else {
        score_key<1>(args, key, queries, scores, lane);
      }
    }
  });
  ctx.sync();
}

// Replaces scores by exp(score - greatest) and sums them; a warp per head.
template <typename Context>
DSMOE_HD void softmax_tile(Context& ctx,
                           const DecodePlace& place,
                           const DecodeShared& shared,
                           int64_t heads) {
  const int n_warps = ctx.n_lanes() / kWarpLanes;
  for (int64_t first = 0; first < heads; first += n_warps) {
    ctx.warp_reduce(
        [&](int lane) {
          const float* scores = shared.scores + (first + lane / kWarpLanes) * kDecodeTile;
          float greatest = -INFINITY;
          for (int64_t i = lane % kWarpLanes; i < place.n_keys; i += kWarpLanes) {
            greatest = greatest < scores[i] ? scores[i] : greatest;
          }
          return greatest;
        },
        Max(),
        [&](int warp, float greatest) { shared.greatest[first + warp] = greatest; });
  }
  ctx.sync();
  for (int64_t first = 0; first < heads; first += n_warps) {
    ctx.warp_reduce(
        [&](int lane) {
          const int64_t head = first + lane / kWarpLanes;
          float* scores = shared.scores + head * kDecodeTile;
          float sum = 0;
          for (int64_t i = lane % kWarpLanes; i < place.n_keys; i += kWarpLanes) {
            scores[i] = std::exp(scores[i] - shared.greatest[head]);
            sum += scores[i];
          }
          return sum;
        },
        Add(),
        [&](int warp, float sum) { shared.sums[first + warp] = sum; });
  }
  ctx.sync();
}

// Stores the listed groups' sums of values in `partial`; a lane has a column of kDecodeHeads heads.
template <typename Context, typename T>
DSMOE_HD void store_tile(Context& ctx,
                         const DecodeAttention<T>& args,
                         const DecodePlace& place,
                         const DecodeShared& shared,
                         const T* values,
                         int64_t first,
                         int64_t heads) {
  const int64_t n_listed = shared.listed[args.n_groups];
  const int64_t n_heads = args.n_kv_heads * args.n_groups;
  const int64_t n_tiles = blocks_for(args.capacity, kDecodeTile);
  const int head_dim = static_cast<int>(args.head_dim);
  const int n_items = static_cast<int>(heads) / kDecodeHeads * head_dim;
  const int n_keys = static_cast<int>(place.n_keys);
  ctx.lanes([&](int lane) {
    for (int item = lane; item < n_items; item += ctx.n_lanes()) {
      const int d = item % head_dim;
      const int slot = item / head_dim * kDecodeHeads;
      const float* scores = shared.scores + slot * kDecodeTile;
      float sums[kDecodeHeads] = {};
      for (int key = 0; key < n_keys; ++key) {
        const float value = load(values[key * head_dim + d]);
        for (int h = 0; h < kDecodeHeads; ++h) sums[h] += scores[h * kDecodeTile + key] * value;
      }
      for (int h = 0; h < kDecodeHeads; ++h) {
        if (first + slot + h >= n_listed) break;
        const int64_t head = decode_head(args, shared.listed[first + slot + h], place.kv_head);
        float* partial = args.partial + ((place.sequence * n_heads + head) * n_tiles +
                                         place.first_key / kDecodeTile) *
                                            (args.head_dim + 2);
        partial[d] = sums[h];
        if (d == 0) partial[args.head_dim] = shared.greatest[slot + h];
        if (d == 0) partial[args.head_dim + 1] = shared.sums[slot + h];
      }
    }
  });
  ctx.sync();  // before the next heads' queries and scores
}

}  // namespace dsmoe::device
