#include "csrc_kernels/common/cuda_context.cuh"
#include "csrc_kernels/decode_attention/body.h"

namespace dsmoe {

#define DSMOE_KERNELS(T)                                                                           \
  namespace device {                                                                               \
  __global__ void __launch_bounds__(kDecodeLanes) decode_append_##T(const DecodeAppend<T> args) {  \
    CudaContext ctx;                                                                               \
    decode_append_body(ctx, args);                                                                 \
  }                                                                                                \
  __global__ void __launch_bounds__(kDecodeLanes) decode_tiles_                                    \
      ##T(const DecodeAttention<T> args) {                                                         \
    CudaContext ctx;                                                                               \
    decode_tiles_body(ctx, args);                                                                  \
  }                                                                                                \
  __global__ void __launch_bounds__(kDecodeLanes) decode_join_##T(const DecodeAttention<T> args) { \
    CudaContext ctx;                                                                               \
    decode_join_body(ctx, args);                                                                   \
  }                                                                                                \
  static void append(const DecodeAppend<T>& args) {                                                \
    launch(decode_append_##T, decode_append_shape(args), args);                                    \
  }                                                                                                \
  static void attend(const DecodeAttention<T>& args) {                                             \
    launch(decode_tiles_##T, decode_tiles_shape(args), args);                                      \
    launch(decode_join_##T, decode_join_shape(args), args);                                        \
  }                                                                                                \
  }                                                                                                \
  template <>                                                                                      \
  DecodeAttentionKernels<T> cuda_kernels() {                                                       \
    return {device::append, device::attend};                                                       \
  }
DSMOE_KERNELS(Bfloat16)
DSMOE_KERNELS(float)
#undef DSMOE_KERNELS

}  // namespace dsmoe
