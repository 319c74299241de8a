#include "csrc_kernels/common/cuda_context.cuh"
#include "csrc_kernels/moe/few_token_experts_body.h"
#include "csrc_kernels/moe/few_token_experts_cuda.h"

namespace dsmoe {

#define DSMOE_KERNELS(N, T)                                                 \
  namespace device {                                                        \
  __global__ void __launch_bounds__(kFewTokenLanes) few_token_hidden_##N##_ \
      ##T(Activation activation, const FewTokenHidden<T> args) {            \
    CudaContext ctx;                                                        \
    few_token_hidden_body<N>(ctx, activation, args);                        \
  }                                                                         \
  __global__ void __launch_bounds__(kFewTokenLanes) few_token_sum_##N##_    \
      ##T(const FewTokenSum<T> args) {                                      \
    CudaContext ctx;                                                        \
    few_token_sum_body<N>(ctx, args);                                       \
  }                                                                         \
  }
#define DSMOE_LAUNCHERS(T)                                                                    \
  DSMOE_KERNELS(1, T)                                                                         \
  DSMOE_KERNELS(8, T)                                                                         \
  template <>                                                                                 \
  void launch_few_token_hidden(                                                               \
      Activation activation, const FewTokenHidden<T>& args, cudaStream_t stream) {            \
    const auto kernel =                                                                       \
        args.n_tokens == 1 ? device::few_token_hidden_1_##T : device::few_token_hidden_8_##T; \
    device::launch(kernel, device::few_token_hidden_shape(args), stream, activation, args);   \
  }                                                                                           \
  template <>                                                                                 \
  void launch_few_token_sum(const FewTokenSum<T>& args, cudaStream_t stream) {                \
    const auto kernel =                                                                       \
        args.n_tokens == 1 ? device::few_token_sum_1_##T : device::few_token_sum_8_##T;       \
    device::launch(kernel, device::few_token_sum_shape(args), stream, args);                  \
  }
static_assert(kFewTokens == 8);
DSMOE_LAUNCHERS(Bfloat16)
DSMOE_LAUNCHERS(float)
#undef DSMOE_LAUNCHERS
#undef DSMOE_KERNELS

}  // namespace dsmoe
