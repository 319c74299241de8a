#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>

#include "model/named_tensors.h"

namespace dsmoe {

/// Where tests put faults into a step, and what they run it on. Steps count from 0: that of the
/// weights before the update.
struct TrainHooks {
  /// May change the loss of a micro-batch before backward.
  std::function<void(int64_t step, at::Tensor& loss)> on_loss;
  /// May change gradients before they are measured and clipped.
  std::function<void(int64_t step, const NamedTensors& parameters)> on_gradients;
  /// Is called at the end of each step, after it was logged, validated and saved.
  std::function<void(int64_t step, const NamedTensors& parameters)> on_step_end;
  std::optional<at::Device> device = {};  ///< instead of the config's
};

}  // namespace dsmoe
