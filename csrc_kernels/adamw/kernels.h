#pragma once

#include <cstdint>

#include "csrc_kernels/common/kernel_table.h"

namespace dsmoe {

/// A piece of one parameter that one thread updates.
struct AdamwPiece {
  int64_t n;
  float* parameter;
  const float* gradient;
  float* exp_avg;
  float* exp_avg_sq;
  float kept;        ///< 1 - lr * weight_decay
  float step_size;   ///< lr / (1 - beta1^t)
  float root_scale;  ///< 1 / sqrt(1 - beta2^t)
};

struct GradientPiece {
  int64_t n;
  const float* gradient;
};

struct AdamwRates {
  float beta1;
  float beta2;
  float eps;
  float gradient_scale;  ///< factor of every gradient: clipping
};

struct AdamwKernels {
  /// Sum of squares of each piece's gradient, float64.
  void (*squared_gradients)(const GradientPiece* pieces, int64_t n_pieces, double* sums);
  void (*step)(const AdamwPiece* pieces, int64_t n_pieces, const AdamwRates& rates);
};

}  // namespace dsmoe
