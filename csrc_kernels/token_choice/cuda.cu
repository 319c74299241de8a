#include "csrc_kernels/common/cuda_context.cuh"
#include "csrc_kernels/token_choice/body.h"

namespace dsmoe {
namespace device {

__global__ void __launch_bounds__(1024) count_above(const ChoiceRows rows) {
  CudaContext ctx;
  count_above_body(ctx, rows);
}

__global__ void __launch_bounds__(kChoiceLanes) choose(const ChoiceRows rows) {
  CudaContext ctx;
  choose_body(ctx, rows);
}

static void run(const ChoiceRows& rows) {
  launch(count_above, count_above_shape(rows), rows);
  launch(choose, choose_shape(rows), rows);
}

}  // namespace device

template <>
TokenChoiceKernels cuda_kernels() {
  return {device::run};
}

}  // namespace dsmoe
