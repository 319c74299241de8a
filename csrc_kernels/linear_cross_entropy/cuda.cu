#include "csrc_kernels/common/cuda_context.cuh"
#include "csrc_kernels/linear_cross_entropy/body.h"

namespace dsmoe {

#define DSMOE_KERNELS(T)                                                                \
  namespace device {                                                                    \
  __global__ void __launch_bounds__(kCrossEntropyLanes) cross_entropy_                  \
      ##T(const CrossEntropyRows<T> rows, double grad_scale, double* losses) {          \
    CudaContext ctx;                                                                    \
    cross_entropy_body(ctx, rows, grad_scale, losses);                                  \
  }                                                                                     \
  static void run(const CrossEntropyRows<T>& rows, double grad_scale, double* losses) { \
    launch(cross_entropy_##T, cross_entropy_shape(rows), rows, grad_scale, losses);     \
  }                                                                                     \
  }                                                                                     \
  template <>                                                                           \
  CrossEntropyKernels<T> cuda_kernels() {                                               \
    return {device::run};                                                               \
  }
DSMOE_KERNELS(Bfloat16)
DSMOE_KERNELS(float)
DSMOE_KERNELS(double)
#undef DSMOE_KERNELS

}  // namespace dsmoe
