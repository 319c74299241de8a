#pragma once

#include <cuda_runtime_api.h>

#include "csrc_kernels/moe/expert_gemv_kernels.h"

namespace dsmoe {

/// Start the kernels on a stream of the current device; T as in the arguments' own declaration.
template <typename T>
void launch_expert_gemv_hidden(Activation activation,
                               const GemvHidden<T>& args,
                               cudaStream_t stream);
template <typename T>
void launch_expert_gemv_sum(const GemvSum<T>& args, cudaStream_t stream);

}  // namespace dsmoe
