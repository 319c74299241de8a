#include "csrc_kernels/common/cuda_context.cuh"
#include "csrc_kernels/rotary/body.h"

namespace dsmoe {

#define DSMOE_KERNELS(T, W)                                       \
  namespace device {                                              \
  __global__ void __launch_bounds__(kRotaryLanes) rotary_         \
      ##T(const RotaryRows<T, W> rows, const W direction) {       \
    CudaContext ctx;                                              \
    rotary_body(ctx, rows, direction);                            \
  }                                                               \
  static void rotate(const RotaryRows<T, W>& rows, W direction) { \
    launch(rotary_##T, rotary_shape(rows), rows, direction);      \
  }                                                               \
  }                                                               \
  template <>                                                     \
  RotaryKernels<T, W> cuda_kernels() {                            \
    return {device::rotate};                                      \
  }
DSMOE_KERNELS(Bfloat16, float)
DSMOE_KERNELS(float, float)
DSMOE_KERNELS(double, double)
#undef DSMOE_KERNELS

}  // namespace dsmoe
