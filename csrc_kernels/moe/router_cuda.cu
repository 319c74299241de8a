#include "csrc_kernels/moe/router_cuda.h"

#include "csrc_kernels/common/cuda_context.cuh"
#include "csrc_kernels/moe/router_backward_body.h"
#include "csrc_kernels/moe/router_tile_body.h"

namespace dsmoe {

#define DSMOE_LAUNCHERS(T, W)                                                                    \
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
  }                                                                                              \
  template <>                                                                                    \
  void launch_router(const RouterTable<T, W>& table, cudaStream_t stream) {                      \
    if (device::routes_row_by_row(table)) {                                                      \
      device::launch(device::router_rows_##T, device::router_row_shape(table), stream, table);   \
    } else {                                                                                     \
      device::launch(device::router_tiles_##T, device::router_tile_shape(table), stream, table); \
    }                                                                                            \
  }                                                                                              \
  template <>                                                                                    \
  void launch_router_backward(const RouterTable<T, W>& table,                                    \
                              const RouterGradients<T, W>& gradients,                            \
                              cudaStream_t stream) {                                             \
    device::launch(device::router_backward_##T,                                                  \
                   device::router_backward_shape(table),                                         \
                   stream,                                                                       \
                   table,                                                                        \
                   gradients);                                                                   \
  }
DSMOE_LAUNCHERS(Bfloat16, float)
DSMOE_LAUNCHERS(float, float)
DSMOE_LAUNCHERS(double, double)
#undef DSMOE_LAUNCHERS

}  // namespace dsmoe
