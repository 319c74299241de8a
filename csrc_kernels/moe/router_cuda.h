#pragma once

#include <cuda_runtime_api.h>

#include "csrc_kernels/moe/router_kernels.h"

namespace dsmoe {

/// Start the kernels on a stream of the current device; arguments as in RouterOnDevice.
template <typename T, typename W>
void launch_router(const RouterTable<T, W>& table, cudaStream_t stream);
template <typename T, typename W>
void launch_router_backward(const RouterTable<T, W>& table,
                            const RouterGradients<T, W>& gradients,
                            cudaStream_t stream);

}  // namespace dsmoe
