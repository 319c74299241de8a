#include "csrc_kernels/common/cuda_context.cuh"
#include "csrc_kernels/residual_norm/body.h"
#include "csrc_kernels/residual_norm/cuda.h"

namespace dsmoe {

#define DSMOE_KERNELS(kKind, T, W)                                                          \
  namespace device {                                                                        \
  __global__ void __launch_bounds__(kNormLanes) residual_norm_##kKind##_                    \
      ##T(const ResidualNormRows<T, W> rows) {                                              \
    CudaContext ctx;                                                                        \
    residual_norm_body<RowNorm::kKind>(ctx, rows);                                          \
  }                                                                                         \
  __global__ void __launch_bounds__(kNormLanes, 2) residual_norm_backward_##kKind##_        \
      ##T(const ResidualNormRows<T, W> rows, const ResidualNormGradients<T, W> gradients) { \
    CudaContext ctx;                                                                        \
    residual_norm_backward_body<RowNorm::kKind>(ctx, rows, gradients);                      \
  }                                                                                         \
  }
#define DSMOE_LAUNCHERS(T, W)                                                                      \
  DSMOE_KERNELS(kRms, T, W)                                                                        \
  DSMOE_KERNELS(kLayer, T, W)                                                                      \
  template <>                                                                                      \
  void launch_residual_norm(                                                                       \
      RowNorm kind, const ResidualNormRows<T, W>& rows, cudaStream_t stream) {                     \
    const auto kernel =                                                                            \
        kind == RowNorm::kRms ? device::residual_norm_kRms_##T : device::residual_norm_kLayer_##T; \
    device::launch(kernel, device::residual_norm_shape(rows), stream, rows);                       \
  }                                                                                                \
  template <>                                                                                      \
  void launch_residual_norm_backward(RowNorm kind,                                                 \
                                     const ResidualNormRows<T, W>& rows,                           \
                                     const ResidualNormGradients<T, W>& gradients,                 \
                                     cudaStream_t stream) {                                        \
    const auto kernel = kind == RowNorm::kRms ? device::residual_norm_backward_kRms_##T            \
                                              : device::residual_norm_backward_kLayer_##T;         \
    device::launch(kernel, device::residual_norm_backward_shape(rows), stream, rows, gradients);   \
  }
DSMOE_LAUNCHERS(Bfloat16, float)
DSMOE_LAUNCHERS(float, float)
DSMOE_LAUNCHERS(double, double)
#undef DSMOE_LAUNCHERS
#undef DSMOE_KERNELS

}  // namespace dsmoe
