#pragma once

#include <cstdint>

#include "csrc_kernels/common/bfloat16.h"
#include "csrc_kernels/common/device_kernel.h"
#include "csrc_kernels/common/isa.h"

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

DSMOE_DECLARE_FOR_ISAS(
    /// y = x with the pairs (i, i + half) of every head turned by the angle times direction, which
    /// is 1 or -1.
    template <typename T, typename W> void rotary(const RotaryRows<T, W>& rows, W direction);)

/// The same of another device.
template <typename T, typename W>
struct RotaryOnDevice {
  static inline DeviceKernel<const RotaryRows<T, W>&, W> turn = nullptr;
};

}  // namespace dsmoe
