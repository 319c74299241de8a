#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <vector>

namespace dsmoe {

using CheckpointedFunction =
    std::function<std::vector<at::Tensor>(const at::Tensor& x, const at::Tensor& y)>;

/// Runs `function(x, y)` without keeping its activations. The backward pass runs it again from the
/// same random state, so that values and gradients equal those of the plain call, dropout included.
///
/// y may be undefined. x or y must require grad, else the outputs are detached. Outputs may be
/// undefined or non-floating; such outputs carry no gradient. Parameters that `function` uses
/// receive their gradients directly.
std::vector<at::Tensor> checkpoint_activations(CheckpointedFunction function,
                                               const at::Tensor& x,
                                               const at::Tensor& y);

}  // namespace dsmoe
