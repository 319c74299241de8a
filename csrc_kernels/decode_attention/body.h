#pragma once

#include "csrc_kernels/decode_attention/tile_body.h"

/// decode_attention on a GPU. A block computes one tile of keys of one key/value head of one
/// sequence for all query heads that read it and stores its sums in `partial`; a second kernel
/// joins the tiles. Blocks of tiles past the position return at once.
namespace dsmoe::device {

template <typename T>
LaunchShape decode_append_shape(const DecodeAppend<T>& args) {
  const int64_t n_pairs = args.batch * args.n_kv_heads * (args.head_dim / 2);
  return {.n_blocks = blocks_for(n_pairs, kDecodeLanes), .n_lanes = kDecodeLanes};
}

template <typename T>
LaunchShape decode_tiles_shape(const DecodeAttention<T>& args) {
  const int64_t heads = decode_heads_at_once(args.n_groups, args.head_dim);
  const int64_t floats = heads * (args.head_dim + kDecodeTile + 2);
  return {.n_blocks = args.batch * args.n_kv_heads * blocks_for(args.capacity, kDecodeTile),
          .n_lanes = kDecodeLanes,
          .shared_bytes = (floats + 2 * args.n_groups + 1) * static_cast<int64_t>(sizeof(float))};
}

template <typename T>
LaunchShape decode_join_shape(const DecodeAttention<T>& args) {
  return {.n_blocks = args.batch * args.n_kv_heads * args.n_groups, .n_lanes = kDecodeLanes};
}

template <typename Context, typename T>
DSMOE_HD void decode_append_body(Context& ctx, const DecodeAppend<T>& args) {
  const int64_t half = args.head_dim / 2;
  ctx.lanes([&](int lane) {
    const int64_t item = ctx.block() * ctx.n_lanes() + lane;
    if (item >= args.batch * args.n_kv_heads * half) return;
    const int64_t i = item % half;
    const int64_t head = item / half;  // over the batch
    const int64_t b = head / args.n_kv_heads;
    const int64_t from = head * args.head_dim + i;
    const int64_t to = (head * args.capacity + args.positions[b]) * args.head_dim + i;
    const float c = args.cos == nullptr ? 1.0F : args.cos[b * half + i];
    const float s = args.cos == nullptr ? 0.0F : args.sin[b * half + i];
    const float x = load(args.k[from]);
    const float y = load(args.k[from + half]);
    store(args.keys[to], x * c - y * s);
    store(args.keys[to + half], y * c + x * s);
    args.values[to] = args.v[from];
    args.values[to + half] = args.v[from + half];
  });
}

template <typename Context, typename T>
DSMOE_HD void decode_tiles_body(Context& ctx, const DecodeAttention<T>& args) {
  const int64_t n_tiles = blocks_for(args.capacity, kDecodeTile);
  const int64_t row = ctx.block() / n_tiles;  // of sequence and key/value head
  DecodePlace place{row / args.n_kv_heads, row % args.n_kv_heads, 0, 0};
  place.first_key = ctx.block() % n_tiles * kDecodeTile;
  const int64_t n_left = args.positions[place.sequence] + 1 - place.first_key;
  if (n_left <= 0) return;
  place.n_keys = n_left < kDecodeTile ? n_left : kDecodeTile;
  const int64_t heads = decode_heads_at_once(args.n_groups, args.head_dim);
  DecodeShared shared{};
  shared.queries = ctx.template shared<float>();
  shared.scores = shared.queries + heads * args.head_dim;
  shared.greatest = shared.scores + heads * kDecodeTile;
  shared.sums = shared.greatest + heads;
  shared.flags = reinterpret_cast<int*>(shared.sums + heads);
  shared.listed = shared.flags + args.n_groups;
  const int64_t begin = (row * args.capacity + place.first_key) * args.head_dim;
  list_groups(ctx, args, place, shared);
  for (int64_t first = 0; first < shared.listed[args.n_groups]; first += heads) {
    load_queries(ctx, args, place, shared, first, heads);
    ctx.sync();
    score_tile(ctx, args, place, shared, args.keys + begin, heads);
    softmax_tile(ctx, place, shared, heads);
    store_tile(ctx, args, place, shared, args.values + begin, first, heads);
  }
}

template <typename Context, typename T>
DSMOE_HD void decode_join_body(Context& ctx, const DecodeAttention<T>& args) {
  const int64_t n_heads = args.n_kv_heads * args.n_groups;
  const int64_t b = ctx.block() / n_heads;
  const int64_t head = ctx.block() % n_heads;
  const int64_t group = args.by_expert ? head / args.n_kv_heads : head % args.n_groups;
  const int64_t n_tiles = args.positions[b] / kDecodeTile + 1;
  const int64_t stride = args.head_dim + 2;
  const float* partial =
      args.partial + ctx.block() * blocks_for(args.capacity, kDecodeTile) * stride;
  ctx.lanes([&](int lane) {
    for (int64_t d = lane; d < args.head_dim; d += ctx.n_lanes()) {
      T& y = args.y[ctx.block() * args.head_dim + d];
      if (!group_counts(args, b, group)) {
        store(y, 0.0F);
        continue;
      }
      float greatest = -INFINITY;
      for (int64_t i = 0; i < n_tiles; ++i) {
        const float other = partial[i * stride + args.head_dim];
        greatest = greatest < other ? other : greatest;
      }
      float sum = 0;
      float weight = 0;
      for (int64_t i = 0; i < n_tiles; ++i) {
        const float factor = std::exp(partial[i * stride + args.head_dim] - greatest);
        sum += factor * partial[i * stride + d];
        weight += factor * partial[i * stride + args.head_dim + 1];
      }
      store(y, sum / weight);
    }
  });
}

}  // namespace dsmoe::device
