#pragma once

#include <cuda_runtime_api.h>

#include "csrc_kernels/rotary/kernels.h"

namespace dsmoe {

/// Starts the kernel on a stream of the current device; T, W as in the rows' own declaration.
template <typename T, typename W>
void launch_rotary(const RotaryRows<T, W>& rows, W direction, cudaStream_t stream);

}  // namespace dsmoe
