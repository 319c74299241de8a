#pragma once

#include <cuda_runtime_api.h>

#include "csrc_kernels/linear_cross_entropy/kernels.h"

namespace dsmoe {

/// Starts the kernel on a stream of the current device; T as in the rows' own declaration.
template <typename T>
void launch_cross_entropy(const CrossEntropyRows<T>& rows,
                          double grad_scale,
                          double* losses,
                          cudaStream_t stream);

}  // namespace dsmoe
