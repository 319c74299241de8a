#pragma once

#include <cuda_runtime_api.h>

#include "csrc_kernels/moe/token_choice_kernels.h"

namespace dsmoe {

/// Starts the kernels on a stream of the current device.
void launch_choose(const ChoiceRows& rows, cudaStream_t stream);

}  // namespace dsmoe
