#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace dsmoe {

/// One parameter and its state: contiguous, of one size, float32. If all slots are float64, the
/// reference implementation runs.
struct AdamwSlot {
  at::Tensor parameter;
  at::Tensor gradient;
  at::Tensor exp_avg;
  at::Tensor exp_avg_sq;
  int64_t step;         ///< number of this update, from 1
  double weight_decay;  ///< decoupled; 0: off
};

struct AdamwOptions {
  double lr;
  double beta1;
  double beta2;
  double eps;                   ///< added to the square root
  double gradient_scale = 1.0;  ///< factor of every gradient
};

/// Returns the 2-norm of all gradients together, each contiguous, float32 (or all float64). Sums in
/// float64 in an order that does not depend on the number of threads. A NaN or Inf in a gradient
/// gives NaN or Inf.
double gradient_norm(const std::vector<at::Tensor>& gradients);

/// Updates parameters and moments in place, in one parallel pass over all of them. The CPU only
/// reads the gradients; another device may multiply them by gradient_scale.
/// Source: arXiv:1711.05101, algorithm 2, with lr as the schedule.
void adamw_step(const std::vector<AdamwSlot>& slots, const AdamwOptions& options);

/// Reference implementation of gradient_norm, for at least one gradient.
double gradient_norm_ref(const std::vector<at::Tensor>& gradients);

/// Reference implementation: at::_fused_adamw_ per slot.
void adamw_step_ref(const std::vector<AdamwSlot>& slots, const AdamwOptions& options);

}  // namespace dsmoe
