#pragma once

#include <cstdint>

#include "csrc_kernels/common/bfloat16.h"
#include "csrc_kernels/common/kernel_table.h"

namespace dsmoe {

/// Keys of a tile, for one block of threads.
constexpr int64_t kDecodeTile = 128;
constexpr int64_t kMostDecodeHeadDim = 256;

/// Contiguous; T is float or Bfloat16.
template <typename T>
struct DecodeAppend {
  int64_t batch;
  int64_t n_kv_heads;
  int64_t capacity;
  int64_t head_dim;
  const T* k;                ///< [batch, n_kv_heads, head_dim]
  const T* v;                ///< the same
  const float* cos;          ///< [batch, head_dim / 2], or null
  const float* sin;          ///< the same
  const int64_t* positions;  ///< [batch]
  T* keys;                   ///< [batch, n_kv_heads, capacity, head_dim]
  T* values;                 ///< the same
};

/// n_heads = n_kv_heads * n_groups: head g * n_kv_heads + j (by_expert) or j * n_groups + g reads
/// key/value head j.
template <typename T>
struct DecodeAttention {
  int64_t batch;
  int64_t n_kv_heads;
  int64_t n_groups;
  int64_t capacity;
  int64_t head_dim;  ///< even, at most kMostDecodeHeadDim
  bool by_expert;
  const T* q;                ///< [batch, n_heads, head_dim]
  const T* keys;             ///< [batch, n_kv_heads, capacity, head_dim]
  const T* values;           ///< the same
  const float* cos;          ///< [batch, head_dim / 2], or null
  const float* sin;          ///< the same
  const int64_t* positions;  ///< [batch]
  const float* weights;  ///< [batch, n_groups]: groups of weight 0 are skipped; null: no group is
  float* partial;  ///< [batch, n_heads, tiles of the capacity, head_dim + 2]: sums of values, then
                   ///< the greatest score and the sum of exp(score - greatest)
  T* y;            ///< [batch, n_heads, head_dim]
};

/// Number of tiles of `capacity` keys.
inline int64_t decode_tiles(int64_t capacity) { return (capacity + kDecodeTile - 1) / kDecodeTile; }

/// For another device; the CPU has cached_attention instead.
template <typename T>
struct DecodeAttentionKernels {
  void (*append)(const DecodeAppend<T>& args);
  void (*attend)(const DecodeAttention<T>& args);
};

}  // namespace dsmoe
