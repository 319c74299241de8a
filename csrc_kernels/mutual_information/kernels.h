#pragma once

#include <cstdint>

#include "csrc_kernels/common/kernel_table.h"

namespace dsmoe {

/// Router logits [n_rows, E], contiguous; W is float or double.
template <typename W>
struct RouterRows {
  int64_t n_rows;
  int64_t n_experts;
  const W* logits;
  const bool* counted;  ///< [n_rows], or null: every row counts
};

/// Number of chunks of rows, each with its own sums. It depends on the number of rows only, so that
/// the bits do not depend on the number of threads.
inline int64_t mutual_information_chunks(int64_t n_rows) { return n_rows < 256 ? 1 : 32; }
/// Number of chunks on another device, which has a block of threads per chunk.
inline int64_t mutual_information_device_chunks(int64_t n_rows) {
  constexpr int64_t kChunks = 256;
  constexpr int64_t kChunkRows = 32;
  const int64_t n = (n_rows + kChunkRows - 1) / kChunkRows;
  return n < 1 ? 1 : n < kChunks ? n : kChunks;
}
/// Maximum number of experts on another device, limited by its shared memory.
constexpr int64_t kMostDeviceExperts = 128;

/// Another device takes chunks of mutual_information_device_chunks and at most kMostDeviceExperts.
template <typename W>
struct MutualInformationKernels {
  /// Over the counted rows of each chunk: sums[c, j] = sum p_j and sums[c, E] = sum p log p, with p
  /// the softmax of a row; sums [chunks, E + 1].
  void (*sums)(const RouterRows<W>& rows, double* sums);
  /// grad_logits = factor * p_j (log_mean_j - log p_j + KL(p || mean)), zero for rows that are not
  /// counted; log_mean [E], factor one number.
  void (*backward)(const RouterRows<W>& rows, const W* log_mean, const W* factor, W* grad_logits);
};

}  // namespace dsmoe
