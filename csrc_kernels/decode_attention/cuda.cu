#include "csrc_kernels/common/cuda_context.cuh"
#include "csrc_kernels/decode_attention/body.h"
#include "csrc_kernels/decode_attention/cuda.h"

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
  }                                                                                                \
  template <>                                                                                      \
  void launch_decode_append(const DecodeAppend<T>& args, cudaStream_t stream) {                    \
    device::launch(device::decode_append_##T, device::decode_append_shape(args), stream, args);    \
  }                                                                                                \
  template <>                                                                                      \
  void launch_decode_attention(const DecodeAttention<T>& args, cudaStream_t stream) {              \
    device::launch(device::decode_tiles_##T, device::decode_tiles_shape(args), stream, args);      \
    device::launch(device::decode_join_##T, device::decode_join_shape(args), stream, args);        \
  }
DSMOE_KERNELS(Bfloat16)
DSMOE_KERNELS(float)
#undef DSMOE_KERNELS

}  // namespace dsmoe
