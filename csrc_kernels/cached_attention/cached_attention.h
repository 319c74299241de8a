#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "csrc_kernels/causal_attention/causal_attention.h"
#include "csrc_kernels/rotary/rotary.h"

namespace dsmoe {

/// Where the tokens of a pass stand: token t is number position[t] of sequence[t].
struct TokenPlaces {
  std::vector<int64_t> sequence;  // [n_tokens]
  std::vector<int64_t> position;  // [n_tokens]
};

/// One layer's keys and values of past tokens, sequence by sequence.
struct KvRows {
  std::vector<at::Tensor> keys;    // each [n_kv_heads, capacity, head_dim], contiguous
  std::vector<at::Tensor> values;  // the same shapes
  const TokenPlaces* places = nullptr;
};

/// Stores the rotated keys and the values of the pass's tokens at their places. No gradient.
///
/// k, v  [..., n_kv_heads, head_dim], n_tokens rows in the type of the cache, contiguous
/// Throws c10::Error if shapes or types disagree or a place is outside the cache.
void append_to_cache(const KvRows& cache,
                     const at::Tensor& k,
                     const at::Tensor& v,
                     const RotaryTables& tables);

/// The queries of a pass whose keys are in the cache.
struct QueryRows {
  at::Tensor q;             // [n_rows, n_heads, head_dim] in the type of the cache, contiguous
  at::Tensor token_of_row;  // [n_rows] int64 in 0 .. n_tokens - 1, or undefined: row i is token i
  HeadLayout layout = HeadLayout::kKvMajor;
  RotaryTables tables{};
};

/// Softmax attention of new tokens over the cache, each up to and with its own position; scale 1 /
/// sqrt(head_dim), arithmetic in float32 (float64 for float64). No gradient.
///
/// returns  [n_rows, n_heads, head_dim] in the type of q
/// A row's result depends on its own sequence only and on neither the batch nor the threads.
at::Tensor cached_attention(const KvRows& cache, const QueryRows& queries);

/// Reference implementation in ATen calls row by row.
at::Tensor cached_attention_ref(const KvRows& cache, const QueryRows& queries);

}  // namespace dsmoe
