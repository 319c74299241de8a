#pragma once

#include <cuda_runtime_api.h>

#include "csrc_kernels/residual_norm/kernels.h"

namespace dsmoe {

/// Start the kernels on a stream of the current device; T, W as in the rows' own declaration.
template <typename T, typename W>
void launch_residual_norm(RowNorm kind, const ResidualNormRows<T, W>& rows, cudaStream_t stream);
template <typename T, typename W>
void launch_residual_norm_backward(RowNorm kind,
                                   const ResidualNormRows<T, W>& rows,
                                   const ResidualNormGradients<T, W>& gradients,
                                   cudaStream_t stream);

}  // namespace dsmoe
