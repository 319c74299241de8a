#include "csrc_kernels/common/cuda_context.cuh"
#include "csrc_kernels/expert_gemv/body.h"

namespace dsmoe {

#define DSMOE_KERNELS_OF_SIZE(N, T)                                                                \
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
#define DSMOE_KERNELS(T)                                                                          \
  DSMOE_KERNELS_OF_SIZE(1, T)                                                                     \
  DSMOE_KERNELS_OF_SIZE(8, T)                                                                     \
  namespace device {                                                                              \
  static void hidden(Activation activation, const GemvHidden<T>& args) {                          \
    const auto kernel = args.n_tokens == 1 ? expert_gemv_hidden_1_##T : expert_gemv_hidden_8_##T; \
    launch(kernel, expert_gemv_hidden_shape(args), activation, args);                             \
  }                                                                                               \
  static void sum(const GemvSum<T>& args) {                                                       \
    const auto kernel = args.n_tokens == 1 ? expert_gemv_sum_1_##T : expert_gemv_sum_8_##T;       \
    launch(kernel, expert_gemv_sum_shape(args), args);                                            \
  }                                                                                               \
  }                                                                                               \
  template <>                                                                                     \
  ExpertGemvKernels<T> cuda_kernels() {                                                           \
    return {device::hidden, device::sum};                                                         \
  }
static_assert(kMostGemvTokens == 8);
DSMOE_KERNELS(Bfloat16)
DSMOE_KERNELS(float)
#undef DSMOE_KERNELS
#undef DSMOE_KERNELS_OF_SIZE

}  // namespace dsmoe
