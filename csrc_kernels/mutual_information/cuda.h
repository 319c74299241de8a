#pragma once

#include <cuda_runtime_api.h>

#include "csrc_kernels/mutual_information/kernels.h"

namespace dsmoe {

/// Start the kernels on a stream of the current device; arguments as in
/// MutualInformationOnDevice.
template <typename W>
void launch_mutual_information_sums(const RouterRows<W>& rows, double* sums, cudaStream_t stream);
template <typename W>
void launch_mutual_information_backward(const RouterRows<W>& rows,
                                        const W* log_mean,
                                        const W* factor,
                                        W* grad_logits,
                                        cudaStream_t stream);

}  // namespace dsmoe
