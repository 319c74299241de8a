#pragma once

#include <cstdint>

#include "csrc_kernels/common/bfloat16.h"
#include "csrc_kernels/common/kernel_table.h"
#include "csrc_kernels/common/norm_kind.h"

namespace dsmoe {

/// Contiguous rows of width D. T is float, double or Bfloat16; W is float, or double for double.
template <typename T, typename W>
struct ResidualNormRows {
  int64_t n_rows;
  int64_t width;
  W eps;
  const W* x;       ///< [n_rows, D]
  const T* y;       ///< [n_rows, D], or null
  const W* weight;  ///< [D]
  const W* bias;    ///< [D], or null
  W* residual;      ///< [n_rows, D]: x + y; null where y is
  T* normed;        ///< [n_rows, D]
  W* mean;          ///< [n_rows], zeros for kRmsNorm
  W* scale;         ///< [n_rows]: 1 / sqrt(variance + eps)
};

/// The backward pass reads residual (x where y was null), mean and scale of the forward pass.
template <typename T, typename W>
struct ResidualNormGradients {
  const T* grad_normed;
  const W* grad_residual;  ///< null: zero
  W* grad_x;               ///< [n_rows, D], gradient of the residual stream
  T* grad_y;               ///< the same numbers as T; null: not needed
  W* partial_weight;       ///< [residual_norm_chunks(n_rows), D]: sums over the rows of a chunk
  W* partial_bias;         ///< the same; null: not needed
};

/// Number of chunks of rows, each with its own sums. It depends on the number of rows only, so that
/// the bits do not depend on the number of threads.
inline int64_t residual_norm_chunks(int64_t n_rows) { return n_rows < 64 ? 1 : 32; }
/// Number of chunks on another device, which has a block of threads per chunk.
inline int64_t residual_norm_device_chunks(int64_t n_rows) {
  constexpr int64_t kChunks = 512;
  return n_rows < 1 ? 1 : n_rows < kChunks ? n_rows : kChunks;
}

/// Another device takes chunks of residual_norm_device_chunks.
template <typename T, typename W>
struct ResidualNormKernels {
  void (*forward)(NormKind kind, const ResidualNormRows<T, W>& rows);
  void (*backward)(NormKind kind,
                   const ResidualNormRows<T, W>& rows,
                   const ResidualNormGradients<T, W>& gradients);
};

}  // namespace dsmoe
