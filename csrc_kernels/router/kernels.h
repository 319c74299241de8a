#pragma once

#include <cstdint>

#include "csrc_kernels/common/bfloat16.h"
#include "csrc_kernels/common/kernel_table.h"

namespace dsmoe {

/// Contiguous rows; E n_experts, K width. T is float, double or Bfloat16; W is float, or double for
/// double.
template <typename T, typename W>
struct RouterTable {
  int64_t n_rows;
  int64_t n_experts;
  int64_t width;
  bool gated;       ///< x is [n_rows, 2 K], gate then up, and its features are silu(gate) * up
  bool sigmoid;     ///< probs are the sigmoids of the logits instead
  const T* x;       ///< [n_rows, K], the features themselves, unless gated
  const W* weight;  ///< [E, K]
  W* logits;        ///< [n_rows, E]: features * weight^T
  W* probs;         ///< [n_rows, E]: softmax of the logits, unless sigmoid
};

template <typename T, typename W>
struct RouterGradients {
  const W* grad_logits;  ///< null: zero
  const W* grad_probs;   ///< null: zero
  T* grad_x;             ///< like x
  W* partial_weight;     ///< [router_chunks(n_rows), E, K]: sums over the rows of a chunk
};

/// Rows are summed in chunks that depend on their number only: the same bits for any number of
/// threads.
inline int64_t router_chunks(int64_t n_rows) { return n_rows < 128 ? 1 : 8; }
/// The same of another device, which has a block of threads per chunk and kRouterColumns columns:
/// chunks for about 256 blocks, or one chunk. So the partial sums in float32 take at most 64 KiB an
/// expert, unless a row of the weight alone takes more.
constexpr int64_t kRouterColumns = 64;
inline int64_t router_device_chunks(int64_t n_rows, int64_t width) {
  constexpr int64_t kBlocks = 256;
  constexpr int64_t kLeastRows = 64;
  const int64_t n_columns = (width + kRouterColumns - 1) / kRouterColumns;
  const int64_t most = (n_rows + kLeastRows - 1) / kLeastRows;
  const int64_t n = n_columns < kBlocks ? kBlocks / (n_columns < 1 ? 1 : n_columns) : 1;
  return most < 1 ? 1 : n < most ? n : most;
}
/// Experts whose gradients another device's shared memory holds.
constexpr int64_t kMostRouterExperts = 512;

/// Another device takes chunks of router_device_chunks and at most kMostRouterExperts.
template <typename T, typename W>
struct RouterKernels {
  void (*forward)(const RouterTable<T, W>& table);
  /// Reads probs of the forward pass.
  void (*backward)(const RouterTable<T, W>& table, const RouterGradients<T, W>& gradients);
};

}  // namespace dsmoe
