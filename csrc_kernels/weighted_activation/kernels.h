#pragma once

#include <cstdint>

#include "csrc_kernels/common/bfloat16.h"
#include "csrc_kernels/common/kernel_table.h"
#include "csrc_kernels/common/routing_rule.h"

namespace dsmoe {

/// Contiguous rows of E experts of width F each: up, gate, hidden [n_rows, E * F], weights
/// [n_rows, E]. T is float, double or Bfloat16; W is float, or double for double.
template <typename T, typename W>
struct WeightedActivationRows {
  int64_t n_rows;
  int64_t n_experts;
  int64_t width;
  const T* up;
  const T* gate;     ///< kSwiglu only, else null
  const W* weights;  ///< null: all ones
  T* hidden;         ///< act(up, gate) * weights
};

/// grad_up may be grad_hidden itself.
template <typename T, typename W>
struct WeightedActivationGradients {
  const T* grad_hidden;
  T* grad_up;
  T* grad_gate;     ///< kSwiglu only, else null
  W* grad_weights;  ///< null: not wanted
};

template <typename T, typename W>
struct WeightedActivationKernels {
  /// Fills hidden.
  void (*forward)(Activation activation, const WeightedActivationRows<T, W>& rows);
  /// Fills hidden again, so that it need not be kept, and the gradients.
  void (*backward)(Activation activation,
                   const WeightedActivationRows<T, W>& rows,
                   const WeightedActivationGradients<T, W>& gradients);
};

}  // namespace dsmoe
