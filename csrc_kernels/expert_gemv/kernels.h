#pragma once

#include <cstdint>

#include "csrc_kernels/common/bfloat16.h"
#include "csrc_kernels/common/kernel_table.h"
#include "csrc_kernels/weighted_activation/kernels.h"

namespace dsmoe {

/// More tokens than these are for grouped products.
constexpr int64_t kMostGemvTokens = 8;

/// Contiguous; T is float or Bfloat16.
template <typename T>
struct GemvHidden {
  int64_t n_tokens;  ///< 1 .. kMostGemvTokens
  int64_t n_experts;
  int64_t width;  ///< F
  int64_t d_in;
  const T* x;              ///< [n_tokens, d_in]
  const T* up;             ///< [E * F, d_in]
  const T* gate;           ///< the same, or null
  const float* up_bias;    ///< [E * F], or null
  const float* gate_bias;  ///< the same
  const float* weights;    ///< [n_tokens, E], or null: all ones
  bool weighted;
  T* hidden;  ///< [n_tokens, E * F]
};

template <typename T>
struct GemvSum {
  int64_t n_tokens;  ///< 1 .. kMostGemvTokens
  int64_t n_experts;
  int64_t width;  ///< F
  int64_t d_out;
  const T* hidden;       ///< [n_tokens, E * F]
  const T* down;         ///< [d_out, E * F]
  const float* bias;     ///< [d_out], or null
  const float* weights;  ///< [n_tokens, E]
  bool weighted;
  T* y;  ///< [n_tokens, d_out]
};

/// Kernels of another device; the CPU has those of packed weights instead.
template <typename T>
struct ExpertGemvKernels {
  void (*hidden)(Activation activation, const GemvHidden<T>& args);
  void (*sum)(const GemvSum<T>& args);
};

}  // namespace dsmoe
