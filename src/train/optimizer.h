#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "csrc_kernels/optim/adamw.h"
#include "model/named_tensors.h"
#include "train/train_config.h"

namespace dsmoe {

/// AdamW over named parameters, in place, in one parallel pass; clipping costs no pass of its own.
///
/// Matrices decay; biases and 1-D parameters (norm weights) do not. A parameter without a gradient
/// is left alone, its moments and step count too. Parameters, gradients and state are float32, on
/// the CPU.
class Optimizer {
 public:
  /// Throws Error if a name appears twice, c10::Error if a parameter is not float32.
  Optimizer(NamedTensors parameters, const OptimizerConfig& config);

  /// Measures the global 2-norm of all gradients and makes the next step scale them so that it is
  /// at most max_norm; 0 only measures. Returns the norm before scaling; the gradients stay as
  /// they are.
  double clip_gradients(double max_norm);

  void step(double lr);
  void clear_gradients();

  /// The state tensors themselves, to be saved and to be filled, as `NAME.exp_avg`,
  /// `NAME.exp_avg_sq`, `NAME.step`.
  NamedTensors named_state() const;

  /// Name of the first parameter whose gradient holds a NaN or Inf, if there is one.
  std::optional<std::string> first_non_finite_gradient() const;

 private:
  struct Slot {
    std::string name;
    at::Tensor parameter;
    at::Tensor exp_avg;     // shape of the parameter, a view of moments_
    at::Tensor exp_avg_sq;  // shape of the parameter, a view of moments_
    at::Tensor step;        // scalar, float32
    bool decays;
  };
  std::vector<AdamwSlot> slots_with_gradient() const;

  OptimizerConfig config_;
  std::vector<Slot> slots_;
  at::Tensor moments_;  // [2, elements of all parameters]
  double gradient_scale_ = 1.0;
};

}  // namespace dsmoe
