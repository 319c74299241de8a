#include "csrc_kernels/common/cuda_context.cuh"
#include "csrc_kernels/mutual_information/body.h"

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
  static void sums(const RouterRows<W>& rows, double* sums) {                             \
    launch(mutual_information_sums_##W, mutual_information_sums_shape(rows), rows, sums); \
  }                                                                                       \
  static void backward(const RouterRows<W>& rows,                                         \
                       const W* log_mean,                                                 \
                       const W* factor,                                                   \
                       W* grad_logits) {                                                  \
    launch(mutual_information_backward_##W,                                               \
           mutual_information_backward_shape(rows),                                       \
           rows,                                                                          \
           log_mean,                                                                      \
           factor,                                                                        \
           grad_logits);                                                                  \
  }                                                                                       \
  }                                                                                       \
  template <>                                                                             \
  MutualInformationKernels<W> cuda_kernels() {                                            \
    return {device::sums, device::backward};                                              \
  }
DSMOE_KERNELS(float)
DSMOE_KERNELS(double)
#undef DSMOE_KERNELS

}  // namespace dsmoe
