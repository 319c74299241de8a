#include <thrust/iterator/counting_iterator.h>
#include <thrust/iterator/transform_iterator.h>

#include <cub/device/device_scan.cuh>

#include "csrc_kernels/common/cuda_context.cuh"
#include "csrc_kernels/dispatch/body.h"

namespace dsmoe {
namespace device {

struct MarkOfPair {
  RowLists lists;
  __host__ __device__ int32_t operator()(int64_t i) const { return is_marked(lists, i) ? 1 : 0; }
};

// The inclusive sums of the marks; without a workspace it only says how large that must be.
static size_t sum_marks(const RowLists& lists, int64_t n_pairs, size_t bytes, cudaStream_t stream) {
  const auto marks = thrust::make_transform_iterator(thrust::make_counting_iterator(int64_t{0}),
                                                     MarkOfPair{lists});
  cub::DeviceScan::InclusiveSum(lists.workspace, bytes, marks, lists.row_of_pair, n_pairs, stream);
  return bytes;
}

__global__ void __launch_bounds__(kRowLanes) list_rows(const RowLists lists) {
  CudaContext ctx;
  list_rows_body(ctx, lists);
}

__global__ void __launch_bounds__(kRowLanes) list_slots(const SlotLists lists) {
  CudaContext ctx;
  list_slots_body(ctx, lists);
}

static int64_t workspace_bytes(int64_t n_pairs) {
  return static_cast<int64_t>(sum_marks({}, n_pairs, 0, nullptr));
}

static void list(const RowLists& lists) {
  const int64_t n_pairs = lists.n_experts * lists.n_tokens;
  if (n_pairs == 0) return;
  sum_marks(lists, n_pairs, static_cast<size_t>(workspace_bytes(n_pairs)), current_stream());
  launch(list_rows, list_rows_shape(lists), lists);
}

static void list_slots_of(const SlotLists& lists) {
  launch(list_slots, list_slots_shape(lists), lists);
}

}  // namespace device

template <>
DispatchKernels cuda_kernels() {
  return {device::list, device::list_slots_of, device::workspace_bytes};
}

#define DSMOE_KERNELS(T)                                                                    \
  namespace device {                                                                        \
  __global__ void __launch_bounds__(kRowLanes) dispatch_rows_##T(const MovedRows<T> rows) { \
    CudaContext ctx;                                                                        \
    dispatch_rows_body(ctx, rows);                                                          \
  }                                                                                         \
  __global__ void __launch_bounds__(kRowLanes) combine_rows_##T(const MovedRows<T> rows) {  \
    CudaContext ctx;                                                                        \
    combine_rows_body(ctx, rows);                                                           \
  }                                                                                         \
  static void dispatch(const MovedRows<T>& rows) {                                          \
    launch(dispatch_rows_##T, dispatch_rows_shape(rows), rows);                             \
  }                                                                                         \
  static void combine(const MovedRows<T>& rows) {                                           \
    launch(combine_rows_##T, combine_rows_shape(rows), rows);                               \
  }                                                                                         \
  }                                                                                         \
  template <>                                                                               \
  MoveRowsKernels<T> cuda_kernels() {                                                       \
    return {device::dispatch, device::combine};                                             \
  }
DSMOE_KERNELS(Bfloat16)
DSMOE_KERNELS(float)
#undef DSMOE_KERNELS

}  // namespace dsmoe
