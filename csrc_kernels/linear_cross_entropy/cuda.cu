#include "csrc_kernels/common/cuda_context.cuh"
#include "csrc_kernels/linear_cross_entropy/body.h"
#include "csrc_kernels/linear_cross_entropy/cuda.h"

namespace dsmoe {

#define DSMOE_KERNEL(T)                                                                          \
  namespace device {                                                                             \
  __global__ void __launch_bounds__(kCrossEntropyLanes) cross_entropy_                           \
      ##T(const CrossEntropyRows<T> rows, double grad_scale, double* losses) {                   \
    CudaContext ctx;                                                                             \
    cross_entropy_body(ctx, rows, grad_scale, losses);                                           \
  }                                                                                              \
  }                                                                                              \
  template <>                                                                                    \
  void launch_cross_entropy(                                                                     \
      const CrossEntropyRows<T>& rows, double grad_scale, double* losses, cudaStream_t stream) { \
    device::launch(device::cross_entropy_##T,                                                    \
                   device::cross_entropy_shape(rows),                                            \
                   stream,                                                                       \
                   rows,                                                                         \
                   grad_scale,                                                                   \
                   losses);                                                                      \
  }
DSMOE_KERNEL(Bfloat16)
DSMOE_KERNEL(float)
DSMOE_KERNEL(double)
#undef DSMOE_KERNEL

}  // namespace dsmoe
