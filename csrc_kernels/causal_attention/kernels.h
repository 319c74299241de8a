#pragma once

#include <cstdint>

#include "csrc_kernels/block_product/block_product.h"
#include "csrc_kernels/common/bfloat16.h"
#include "csrc_kernels/common/kernel_table.h"

namespace dsmoe {

/// Queries of a block. A part of a sequence that begins at a multiple of it has the bits of the
/// whole sequence.
constexpr int64_t kQueryBlock = 32;

/// Row i at data + i * stride.
template <typename T>
struct RowSpan {
  T* data;
  int64_t stride;

  T* operator[](int64_t row) const { return data + row * stride; }
};

/// Rows of one head or of several: entry (head g, row i, column d) at data[g * head_stride + i *
/// row_stride + d].
template <typename T>
struct HeadRows {
  T* data;
  int64_t head_stride;
  int64_t row_stride;

  /// Rows of a head, from `row` on.
  RowSpan<T> from(int64_t head, int64_t row) const {
    return {data + head * head_stride + row * row_stride, row_stride};
  }
};

/// Sizes of one key/value head and its query heads: S seq, G query heads, D head_dim. The forward
/// pass may begin at a later query, N = S - first_query of them.
struct AttentionShape {
  int64_t seq;
  int64_t n_query_heads;
  int64_t head_dim;
  int64_t first_query = 0;

  int64_t n_queries() const { return seq - first_query; }
};

/// q, y [G, N, D]; k, v [1, S, D]; log_sums [G, N], base-2 logarithms of the softmax denominators.
template <typename T, typename W>
struct AttentionForward {
  HeadRows<const T> q;
  HeadRows<const T> k;
  HeadRows<const T> v;
  HeadRows<T> y;
  W* log_sums;
};

/// Values of the forward pass and their gradients.
template <typename T, typename W>
struct AttentionBackward {
  HeadRows<const T> q;
  HeadRows<const T> k;
  HeadRows<const T> v;
  HeadRows<const T> y;
  const W* log_sums;
  HeadRows<const T> grad_y;
  HeadRows<T> grad_q;
  HeadRows<T> grad_k;
  HeadRows<T> grad_v;
};

/// T: type of the tensors; B: type that blocks are multiplied in (float for bfloat16 tensors where
/// the CPU lacks a fast product, else T); W: float, or double for double.
template <typename T, typename B, typename W>
struct CausalForwardKernels {
  /// Bytes of scratch that `run` uses, at any address.
  int64_t (*scratch_bytes)(const AttentionShape& shape);
  /// Writes y and log_sums.
  void (*run)(const AttentionShape& shape,
              const AttentionForward<T, W>& tensors,
              BlockProduct<B, W> product,
              void* scratch);
};

template <typename T, typename B, typename W>
struct CausalBackwardKernels {
  /// Bytes of scratch that `run` uses, at any address.
  int64_t (*scratch_bytes)(const AttentionShape& shape);
  /// Writes the three gradients.
  void (*run)(const AttentionShape& shape,
              const AttentionBackward<T, W>& tensors,
              BlockProduct<B, W> product,
              void* scratch);
};

}  // namespace dsmoe
