#include "csrc_kernels/common/cuda_context.cuh"
#include "csrc_kernels/moe/token_choice_body.h"
#include "csrc_kernels/moe/token_choice_cuda.h"

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

}  // namespace device

void launch_choose(const ChoiceRows& rows, cudaStream_t stream) {
  device::launch(device::count_above, device::count_above_shape(rows), stream, rows);
  device::launch(device::choose, device::choose_shape(rows), stream, rows);
}

}  // namespace dsmoe
