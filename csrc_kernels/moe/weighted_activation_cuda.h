#pragma once

#include <cuda_runtime_api.h>

#include "csrc_kernels/moe/weighted_activation_kernels.h"

namespace dsmoe {

/// Start the kernels on a stream of the current device; T, W as in the rows' own declaration.
template <typename T, typename W>
void launch_weighted_activation(Activation activation,
                                const WeightedActivationRows<T, W>& rows,
                                cudaStream_t stream);
template <typename T, typename W>
void launch_weighted_activation_backward(Activation activation,
                                         const WeightedActivationRows<T, W>& rows,
                                         const WeightedActivationGradients<T, W>& gradients,
                                         cudaStream_t stream);

}  // namespace dsmoe
