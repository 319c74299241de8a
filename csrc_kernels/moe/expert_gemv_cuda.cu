#include "csrc_kernels/common/cuda_context.cuh"
#include "csrc_kernels/moe/expert_gemv_body.h"
#include "csrc_kernels/moe/expert_gemv_cuda.h"

namespace dsmoe {

#define DSMOE_KERNELS(N, T)                                                                        \
  namespace device {                                                                               \
  __global__ void __launch_bounds__(kGemvLanes) expert_gemv_hidden_##N##_                          \
      ##T(Activation activation, const GemvHidden<T> args) {                                       \
    CudaContext ctx;                                                                               \
    expert_gemv_hidden_body<N>(ctx, activation, args);                                             \
  }                                                                                                \
  __global__ void __launch_bounds__(kGemvLanes) expert_gemv_sum_##N##_##T(const GemvSum<T> args) { \
    CudaContext ctx;                                                                               \
    expert_gemv_sum_body<N>(ctx, args);                                                            \
  }                                                                                                \
  }
#define DSMOE_LAUNCHERS(T)                                                                        \
  DSMOE_KERNELS(1, T)                                                                             \
  DSMOE_KERNELS(8, T)                                                                             \
  template <>                                                                                     \
  void launch_expert_gemv_hidden(                                                                 \
      Activation activation, const GemvHidden<T>& args, cudaStream_t stream) {                    \
    const auto kernel =                                                                           \
        args.n_tokens == 1 ? device::expert_gemv_hidden_1_##T : device::expert_gemv_hidden_8_##T; \
    device::launch(kernel, device::expert_gemv_hidden_shape(args), stream, activation, args);     \
  }                                                                                               \
  template <>                                                                                     \
  void launch_expert_gemv_sum(const GemvSum<T>& args, cudaStream_t stream) {                      \
    const auto kernel =                                                                           \
        args.n_tokens == 1 ? device::expert_gemv_sum_1_##T : device::expert_gemv_sum_8_##T;       \
    device::launch(kernel, device::expert_gemv_sum_shape(args), stream, args);                    \
  }
static_assert(kMostGemvTokens == 8);
DSMOE_LAUNCHERS(Bfloat16)
DSMOE_LAUNCHERS(float)
#undef DSMOE_LAUNCHERS
#undef DSMOE_KERNELS

}  // namespace dsmoe
