#include "csrc_kernels/common/cuda_context.cuh"
#include "csrc_kernels/residual_norm/body.h"

namespace dsmoe {

#define DSMOE_KERNELS_OF_KIND(kKind, T, W)                                               \
  __global__ void __launch_bounds__(kNormLanes)                                          \
      residual_norm_##kKind##_##T(const ResidualNormRows<T, W> rows) {                   \
    CudaContext ctx;                                                                     \
    residual_norm_body<NormKind::kKind>(ctx, rows);                                      \
  }                                                                                      \
  __global__ void __launch_bounds__(kNormLanes, 2) residual_norm_backward_##kKind##_##T( \
      const ResidualNormRows<T, W> rows, const ResidualNormGradients<T, W> gradients) {  \
    CudaContext ctx;                                                                     \
    residual_norm_backward_body<NormKind::kKind>(ctx, rows, gradients);                  \
  }
#define DSMOE_KERNELS(T, W)                                                                     \
  namespace device {                                                                            \
  DSMOE_KERNELS_OF_KIND(kRmsNorm, T, W)                                                         \
  DSMOE_KERNELS_OF_KIND(kLayerNorm, T, W)                                                       \
  static void forward(NormKind kind, const ResidualNormRows<T, W>& rows) {                      \
    const auto kernel =                                                                         \
        kind == NormKind::kRmsNorm ? residual_norm_kRmsNorm_##T : residual_norm_kLayerNorm_##T; \
    launch(kernel, residual_norm_shape(rows), rows);                                            \
  }                                                                                             \
  static void backward(NormKind kind,                                                           \
                       const ResidualNormRows<T, W>& rows,                                      \
                       const ResidualNormGradients<T, W>& gradients) {                          \
    const auto kernel = kind == NormKind::kRmsNorm ? residual_norm_backward_kRmsNorm_##T        \
                                                   : residual_norm_backward_kLayerNorm_##T;     \
    launch(kernel, residual_norm_backward_shape(rows), rows, gradients);                        \
  }                                                                                             \
  }                                                                                             \
  template <>                                                                                   \
  ResidualNormKernels<T, W> cuda_kernels() {                                                    \
    return {device::forward, device::backward};                                                 \
  }
DSMOE_KERNELS(Bfloat16, float)
DSMOE_KERNELS(float, float)
DSMOE_KERNELS(double, double)
#undef DSMOE_KERNELS
#undef DSMOE_KERNELS_OF_KIND

}  // namespace dsmoe
