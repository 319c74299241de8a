#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "model/named_tensors.h"
#include "train/train_config.h"

namespace dsmoe {

/// AdamW over named parameters, in place, one fused call per decay group.
///
/// Matrices decay; biases and 1-D parameters (norm weights) do not. A parameter without a gradient
/// is left alone, its moments and step count too. Parameters, gradients and state are float32.
class Optimizer {
 public:
  /// Throws Error if a name appears twice, c10::Error if a parameter is not float32.
  Optimizer(NamedTensors parameters, const OptimizerConfig& config);

  /// Scales all gradients so that their global 2-norm is at most max_norm; 0 only measures.
  /// Returns the norm before scaling, a scalar tensor, without waiting for the device.
  at::Tensor clip_gradients(double max_norm);

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
    at::Tensor exp_avg;     // shape of the parameter
    at::Tensor exp_avg_sq;  // shape of the parameter
    at::Tensor step;        // scalar, float32
    bool decays;
  };
  void step_group(bool decays, double lr);

  OptimizerConfig config_;
  std::vector<Slot> slots_;
};

}  // namespace dsmoe
