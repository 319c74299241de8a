#include "csrc_kernels/common/cuda_context.cuh"
#include "csrc_kernels/router/backward_body.h"
#include "csrc_kernels/router/tile_body.h"

namespace dsmoe {

#define DSMOE_KERNELS(T, W)                                                                      \
  namespace device {                                                                             \
  __global__ void __launch_bounds__(kRouteRowLanes, 1) router_rows_                              \
      ##T(const RouterTable<T, W> table) {                                                       \
    CudaContext ctx;                                                                             \
    router_row_body(ctx, table);                                                                 \
  }                                                                                              \
  __global__ void __launch_bounds__(kRouteTileLanes, 4) router_tiles_                            \
      ##T(const RouterTable<T, W> table) {                                                       \
    CudaContext ctx;                                                                             \
    router_tile_body(ctx, table);                                                                \
  }                                                                                              \
  __global__ void __launch_bounds__(kRouteGradLanes, 2) router_backward_                         \
      ##T(const RouterTable<T, W> table, const RouterGradients<T, W> gradients) {                \
    CudaContext ctx;                                                                             \
    router_backward_body(ctx, table, gradients);                                                 \
  }                                                                                              \
  static void forward(const RouterTable<T, W>& table) {                                          \
    if (routes_row_by_row(table)) {                                                              \
      launch(router_rows_##T, router_row_shape(table), table);                                   \
    } else {                                                                                     \
      launch(router_tiles_##T, router_tile_shape(table), table);                                 \
    }                                                                                            \
  }                                                                                              \
  static void backward(const RouterTable<T, W>& table, const RouterGradients<T, W>& gradients) { \
    launch(router_backward_##T, router_backward_shape(table), table, gradients);                 \
  }                                                                                              \
  }                                                                                              \
  template <>                                                                                    \
  RouterKernels<T, W> cuda_kernels() {                                                           \
    return {device::forward, device::backward};                                                  \
  }
DSMOE_KERNELS(Bfloat16, float)
DSMOE_KERNELS(float, float)
DSMOE_KERNELS(double, double)
#undef DSMOE_KERNELS

}  // namespace dsmoe
