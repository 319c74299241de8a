#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace dsmoe {

/// One parameter and its state, all float32 and contiguous, of one size. float64, for all slots
/// alike, takes the reference.
struct AdamwSlot {
  at::Tensor parameter;
  at::Tensor gradient;
  at::Tensor exp_avg;
  at::Tensor exp_avg_sq;
  int64_t step;         ///< this update's number, from 1
  double weight_decay;  ///< decoupled; 0: off
};

struct AdamwOptions {
  double lr;
  double beta1;
  double beta2;
  double eps;                   ///< added to the root
  double gradient_scale = 1.0;  ///< multiplies every gradient first
};

/// Global 2-norm of gradients, float32 (or all float64) and contiguous, summed in float64 in an
/// order that does not depend on the number of threads. NaN or Inf where a gradient is.
double gradient_norm(const std::vector<at::Tensor>& gradients);

/// Updates parameters and moments in place, in one parallel pass over all of them; gradients are
/// only read, but off the CPU, where gradient_scale may be multiplied into them. Source:
/// arXiv:1711.05101, algorithm 2, with lr as the schedule.
void adamw_step(const std::vector<AdamwSlot>& slots, const AdamwOptions& options);

/// Reference implementation of gradient_norm, for at least one gradient.
double gradient_norm_ref(const std::vector<at::Tensor>& gradients);

/// Reference implementation: at::_fused_adamw_ per slot.
void adamw_step_ref(const std::vector<AdamwSlot>& slots, const AdamwOptions& options);

}  // namespace dsmoe
