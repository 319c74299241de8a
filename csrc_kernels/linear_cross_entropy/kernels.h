#pragma once

#include <cstdint>

#include "csrc_kernels/common/bfloat16.h"
#include "csrc_kernels/common/device_kernel.h"
#include "csrc_kernels/common/isa.h"

namespace dsmoe {

/// Contiguous logits [n_rows, V]. T is float, double or Bfloat16.
template <typename T>
struct CrossEntropyRows {
  int64_t n_rows;
  int64_t vocab_size;
  T* logits;
  const int64_t* targets;  ///< [n_rows], in 0 .. V
};

DSMOE_DECLARE_FOR_ISAS(
    /// losses[r] = log sum exp(logits[r]) - logits[r, target]. Unless grad_scale is 0 the logits
    /// become their gradient, (softmax - one hot) * grad_scale.
    template <typename T>
    void cross_entropy(const CrossEntropyRows<T>& rows, double grad_scale, double* losses);)

/// The same of another device; the loss of a target outside 0 .. V is NaN there.
template <typename T>
struct CrossEntropyOnDevice {
  static inline DeviceKernel<const CrossEntropyRows<T>&, double, double*> run = nullptr;
};

}  // namespace dsmoe
