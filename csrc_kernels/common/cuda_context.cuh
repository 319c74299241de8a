#pragma once

#include <cuda_runtime.h>

#include "csrc_kernels/common/device_body.h"

namespace dsmoe::device {

extern __shared__ __align__(16) unsigned char dsmoe_shared_memory[];

/// The execution context of a body on a GPU: blocks along x, lanes along threadIdx.x.
class CudaContext {
 public:
  __device__ int64_t block() const { return blockIdx.x; }
  __device__ int64_t n_blocks() const { return gridDim.x; }
  __device__ int n_lanes() const { return static_cast<int>(blockDim.x); }
  __device__ void sync() { __syncthreads(); }

  template <typename T>
  __device__ T* shared() {
    return reinterpret_cast<T*>(dsmoe_shared_memory);
  }

  template <typename F>
  __device__ void lanes(F f) {
    f(lane());
  }

  template <typename F, typename Op, typename G>
  __device__ void warp_reduce(F f, Op op, G g) {
    const auto value = joined(f(lane()), op);
    if (lane() % kWarpLanes == 0) g(lane() / kWarpLanes, value);
  }

  template <typename F, typename Op>
  __device__ auto block_reduce(F f, Op op) {
    using V = decltype(f(0));
    __shared__ __align__(16) unsigned char scratch[kMaxWarps * sizeof(V)];
    auto* of_warp = reinterpret_cast<V*>(scratch);
    const V value = joined(f(lane()), op);
    if (lane() % kWarpLanes == 0) of_warp[lane() / kWarpLanes] = value;
    __syncthreads();
    V result = of_warp[0];
    for (int i = 1; i < n_lanes() / kWarpLanes; ++i) result = op(result, of_warp[i]);
    __syncthreads();  // before the scratch is written again
    return result;
  }

 private:
  static constexpr int kMaxWarps = 32;

  __device__ static int lane() { return static_cast<int>(threadIdx.x); }

  template <typename V, typename Op>
  __device__ static V joined(V value, Op op) {
    static_assert(sizeof(V) % 4 == 0);
    for (int distance = kWarpLanes / 2; distance > 0; distance /= 2) {
      V other;
      unsigned words[sizeof(V) / 4];
      memcpy(words, &value, sizeof value);
      for (unsigned& word : words) word = __shfl_xor_sync(0xffffffffU, word, distance);
      memcpy(&other, words, sizeof other);
      value = op(value, other);
    }
    return value;
  }
};

/// The stream of the current device that kernels start on. The module defines it, and so does the
/// fake runtime of the tests.
cudaStream_t current_stream();
/// Throws c10::Error if the last launch failed; defined where current_stream is.
void check_launch();

/// Starts `kernel` in `shape` on the current stream; nothing where there are no blocks.
template <typename... Parameters, typename... Arguments>
void launch(void (*kernel)(Parameters...),
            const LaunchShape& shape,
            const Arguments&... arguments) {
  if (shape.n_blocks == 0) return;
  // More blocks than a grid has make it an empty one, which the runtime refuses.
  const auto n_blocks = shape.n_blocks > INT32_MAX ? 0U : static_cast<unsigned>(shape.n_blocks);
  const auto n_lanes = static_cast<unsigned>(shape.n_lanes);
  const auto shared_bytes = static_cast<size_t>(shape.shared_bytes);
  kernel<<<dim3(n_blocks), dim3(n_lanes), shared_bytes, current_stream()>>>(arguments...);
  check_launch();
}

}  // namespace dsmoe::device
