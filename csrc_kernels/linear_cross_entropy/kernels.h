#pragma once

#include <cstdint>

#include "csrc_kernels/common/bfloat16.h"
#include "csrc_kernels/common/kernel_table.h"

namespace dsmoe {

/// Contiguous logits [n_rows, V]. T is float, double or Bfloat16.
template <typename T>
struct CrossEntropyRows {
  int64_t n_rows;
  int64_t vocab_size;
  T* logits;
  const int64_t* targets;  ///< [n_rows], in 0 .. V
};

template <typename T>
struct CrossEntropyKernels {
  /// losses[r] = log sum exp(logits[r]) - logits[r, target]. Unless grad_scale is 0 the logits
  /// become their gradient, (softmax - one hot) * grad_scale. On another device than the CPU the
  /// loss of a target outside 0 .. V is NaN.
  void (*run)(const CrossEntropyRows<T>& rows, double grad_scale, double* losses);
};

}  // namespace dsmoe
