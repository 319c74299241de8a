#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "csrc_kernels/causal_attention/causal_attention.h"
#include "csrc_kernels/rotary/rotary.h"

namespace dsmoe {

/// Positions of the tokens of a pass: token t is number position[t] of sequence[t].
struct TokenPlaces {
  std::vector<int64_t> sequence;  // [n_tokens]
  std::vector<int64_t> position;  // [n_tokens]
};

/// Keys and values of past tokens in one layer, sequence by sequence.
struct KvRows {
  std::vector<at::Tensor> keys;    // each [n_kv_heads, capacity, head_dim], contiguous
  std::vector<at::Tensor> values;  // the same shapes
  const TokenPlaces* places = nullptr;
};

/// Stores the rotated keys and the values of a pass's tokens at their positions. No gradient.
///
/// k, v  [..., n_kv_heads, head_dim], n_tokens rows in the type of the cache, contiguous
/// Throws c10::Error if shapes or types disagree or a position is outside the cache.
void append_to_cache(const KvRows& cache,
                     const at::Tensor& k,
                     const at::Tensor& v,
                     const RotaryTables& tables);

/// Queries of a pass; append_to_cache has stored its keys and values.
struct QueryRows {
  at::Tensor q;             // [n_rows, n_heads, head_dim] in the type of the cache, contiguous
  at::Tensor token_of_row;  // [n_rows] int64 in 0 .. n_tokens - 1, or undefined: row i is token i
  HeadLayout layout = HeadLayout::kKvMajor;
  RotaryTables tables{};
};

/// Softmax attention of new tokens over the cache. Each attends to the keys up to its own position,
/// inclusive; scale 1 / sqrt(head_dim), arithmetic in float32 (float64 for float64). No gradient.
///
/// returns  [n_rows, n_heads, head_dim] in the type of q
/// The result of a row depends on its own sequence only, neither on the batch nor on the threads.
at::Tensor cached_attention(const KvRows& cache, const QueryRows& queries);

/// Reference implementation in ATen calls, row by row.
at::Tensor cached_attention_ref(const KvRows& cache, const QueryRows& queries);

}  // namespace dsmoe
