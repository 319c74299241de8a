#pragma once

#include <cstdint>

#include "csrc_kernels/common/bfloat16.h"
#include "csrc_kernels/common/kernel_table.h"

namespace dsmoe {

/// Keys and values by sequence: [H n_kv_heads, capacity, head_dim] each. T is float, double or
/// Bfloat16.
template <typename T>
struct CacheRows {
  int64_t n_kv_heads;
  int64_t head_dim;
  T* const* keys;
  T* const* values;
  const int64_t* capacities;  ///< of the sequences
  const int64_t* sequences;   ///< of the pass's tokens
  const int64_t* positions;   ///< the same

  /// Index of the first row of a head in the sequence of a token.
  int64_t head_begin(int64_t token, int64_t head) const {
    return head * capacities[sequences[token]] * head_dim;
  }
};

/// cos, sin [n_table_rows, head_dim / 2], token t takes row t % n_table_rows; null: no rotation.
/// W is float, or double for double.
template <typename W>
struct RotaryTableRows {
  int64_t n_table_rows;
  const W* cos;
  const W* sin;
};

/// Queries [n_rows, n_heads, head_dim].
template <typename T, typename W>
struct CachedQueries {
  int64_t n_heads;
  bool kv_major;  ///< head h reads key/value head h / (n_heads / H), else h % H
  const T* q;
  const int64_t* token_of_row;  ///< null: row i is token i
  RotaryTableRows<W> tables;
  T* y;  ///< like q
};

template <typename T, typename W>
struct CachedAttentionKernels {
  /// Stores the rotated keys and the values of one token, k and v [n_tokens, H, head_dim].
  void (*append_token)(const CacheRows<T>& cache,
                       const RotaryTableRows<W>& tables,
                       int64_t token,
                       const T* k,
                       const T* v);
  /// Fills y of one row for the query heads that read one key/value head. scratch [longest sequence
  /// + 2 * head_dim].
  void (*attend_row)(const CacheRows<T>& cache,
                     const CachedQueries<T, W>& queries,
                     int64_t row,
                     int64_t kv_head,
                     W* scratch);
};

}  // namespace dsmoe
