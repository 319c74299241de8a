#pragma once

#include "csrc_kernels/common/bfloat16.h"
#include "csrc_kernels/common/kernel_table.h"
#include "csrc_kernels/common/routing_rule.h"
#include "csrc_kernels/packed_linear/packed_layout.h"

namespace dsmoe {

/// sums [n_rows, kPanelWidth] = packed rows times one panel. Every sum runs along d_in in the same
/// order for any n_rows: the result of a row does not depend on the other rows.
struct PanelProduct {
  PackedFormat format;
  int64_t d_in;
  int64_t n_rows;  ///< 1 .. PanelKernels::max_rows
  const std::byte* panel;
  const std::byte* rows;  ///< as packed by RowKernels::pack
  float* sums;
  /// The panel that this thread probably reads next. The product prefetches its beginning, or all
  /// of it if `panel` is in the cache already.
  const std::byte* next;
  bool is_cached = false;
};

/// Products with panels, and activations of their results.
struct PanelKernels {
  int64_t (*max_rows)(PackedFormat format);  ///< rows that share one read of a panel
  /// Bytes of one row in a block of packed rows.
  int64_t (*row_bytes)(PackedFormat format, int64_t d_in);
  void (*multiply)(const PanelProduct& product);
  /// up = weight * act(up, gate) over kPanelWidth values; gate for kSwiglu only.
  void (*activate)(Activation activation, float weight, const float* gate, float* up);
};

/// Conversions between rows of T (float or Bfloat16) and the layout of PanelKernels.
template <typename T>
struct RowKernels {
  /// Packs n_rows rows of d_in numbers into one block.
  void (*pack)(PackedFormat format,
               int64_t d_in,
               int64_t n_rows,
               const T* const* sources,
               std::byte* rows);
  /// y = values + bias over n values; bias may be null.
  void (*store)(int64_t n, const float* values, const float* bias, T* y);
};

inline const PanelKernels& panel_kernels() { return cpu_kernels<PanelKernels>(); }
template <typename T>
const RowKernels<T>& row_kernels() {
  return cpu_kernels<RowKernels<T>>();
}

}  // namespace dsmoe
