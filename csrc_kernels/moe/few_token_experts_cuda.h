#pragma once

#include <cuda_runtime_api.h>

#include "csrc_kernels/moe/few_token_experts_kernels.h"

namespace dsmoe {

/// Start the kernels on a stream of the current device; T as in the arguments' own declaration.
template <typename T>
void launch_few_token_hidden(Activation activation,
                             const FewTokenHidden<T>& args,
                             cudaStream_t stream);
template <typename T>
void launch_few_token_sum(const FewTokenSum<T>& args, cudaStream_t stream);

}  // namespace dsmoe
