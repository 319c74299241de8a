#include "csrc_kernels/common/cuda_context.cuh"
#include "csrc_kernels/mutual_information/body.h"
#include "csrc_kernels/mutual_information/cuda.h"

namespace dsmoe {

#define DSMOE_KERNELS(W)                                                                  \
  namespace device {                                                                      \
  __global__ void __launch_bounds__(kRouterLanes) mutual_information_sums_                \
      ##W(const RouterRows<W> rows, double* sums) {                                       \
    CudaContext ctx;                                                                      \
    mutual_information_sums_body(ctx, rows, sums);                                        \
  }                                                                                       \
  __global__ void __launch_bounds__(kRouterLanes) mutual_information_backward_            \
      ##W(const RouterRows<W> rows, const W* log_mean, const W* factor, W* grad_logits) { \
    CudaContext ctx;                                                                      \
    mutual_information_backward_body(ctx, rows, log_mean, factor, grad_logits);           \
  }                                                                                       \
  }                                                                                       \
  template <>                                                                             \
  void launch_mutual_information_sums(                                                    \
      const RouterRows<W>& rows, double* sums, cudaStream_t stream) {                     \
    device::launch(device::mutual_information_sums_##W,                                   \
                   device::mutual_information_sums_shape(rows),                           \
                   stream,                                                                \
                   rows,                                                                  \
                   sums);                                                                 \
  }                                                                                       \
  template <>                                                                             \
  void launch_mutual_information_backward(const RouterRows<W>& rows,                      \
                                          const W* log_mean,                              \
                                          const W* factor,                                \
                                          W* grad_logits,                                 \
                                          cudaStream_t stream) {                          \
    device::launch(device::mutual_information_backward_##W,                               \
                   device::mutual_information_backward_shape(rows),                       \
                   stream,                                                                \
                   rows,                                                                  \
                   log_mean,                                                              \
                   factor,                                                                \
                   grad_logits);                                                          \
  }
DSMOE_KERNELS(float)
DSMOE_KERNELS(double)
#undef DSMOE_KERNELS

}  // namespace dsmoe
