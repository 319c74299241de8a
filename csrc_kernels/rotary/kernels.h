#pragma once

#include <cstdint>

#include "csrc_kernels/common/bfloat16.h"
#include "csrc_kernels/common/kernel_table.h"

namespace dsmoe {

/// Contiguous x and y [n_rows, n_heads, 2 * half]; cos, sin [n_table_rows, half], row r of x takes
/// row r % n_table_rows. T is float, double or Bfloat16; W is float, or double for double.
template <typename T, typename W>
struct RotaryRows {
  int64_t n_rows;
  int64_t n_heads;
  int64_t half;
  int64_t n_table_rows;
  const T* x;
  const W* cos;
  const W* sin;
  T* y;
};

template <typename T, typename W>
struct RotaryKernels {
  /// y = x with the pairs (i, i + half) of every head rotated by the angle times direction, which
  /// is 1 or -1.
  void (*rotate)(const RotaryRows<T, W>& rows, W direction);
};

}  // namespace dsmoe
