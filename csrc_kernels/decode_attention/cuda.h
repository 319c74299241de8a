#pragma once

#include <cuda_runtime_api.h>

#include "csrc_kernels/decode_attention/kernels.h"

namespace dsmoe {

/// Start the kernels on a stream of the current device; T as in the arguments' own declaration.
template <typename T>
void launch_decode_append(const DecodeAppend<T>& args, cudaStream_t stream);
template <typename T>
void launch_decode_attention(const DecodeAttention<T>& args, cudaStream_t stream);

}  // namespace dsmoe
