#include "csrc_kernels/common/cuda_context.cuh"
#include "csrc_kernels/rotary/body.h"
#include "csrc_kernels/rotary/cuda.h"

namespace dsmoe {

#define DSMOE_KERNEL(T, W)                                                                   \
  namespace device {                                                                         \
  __global__ void __launch_bounds__(kRotaryLanes) rotary_                                    \
      ##T(const RotaryRows<T, W> rows, const W direction) {                                  \
    CudaContext ctx;                                                                         \
    rotary_body(ctx, rows, direction);                                                       \
  }                                                                                          \
  }                                                                                          \
  template <>                                                                                \
  void launch_rotary(const RotaryRows<T, W>& rows, W direction, cudaStream_t stream) {       \
    device::launch(device::rotary_##T, device::rotary_shape(rows), stream, rows, direction); \
  }
DSMOE_KERNEL(Bfloat16, float)
DSMOE_KERNEL(float, float)
DSMOE_KERNEL(double, double)
#undef DSMOE_KERNEL

}  // namespace dsmoe
