#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#include "csrc_kernels/common/bfloat16.h"

/// The body of a device kernel is a template over an execution context, so that one source runs on
/// a GPU (cuda_context.cuh) and, in tests, on the CPU (tests/support/emulated_device.h). It runs
/// once per block and describes the work of the block's lanes:
///
///   ctx.block(), ctx.n_blocks(), ctx.n_lanes()
///   ctx.shared<T>()             shared memory of the block; the launch sets its size
///   ctx.lanes(f)                runs f(lane) in every lane
///   ctx.sync()                  barrier of the block's lanes; later reads see earlier writes
///   ctx.block_reduce(f, op)     returns op over f(lane) of all lanes to every lane; synchronises
///   ctx.warp_reduce(f, op, g)   op over f(lane) of each warp's lanes, then g(warp, value) once per
///                               warp; no barrier
///
/// Only shared memory keeps values of lanes between two calls. Indices are 64 bits wide.
#ifdef __CUDACC__
#define DSMOE_HD __host__ __device__
#else
#define DSMOE_HD
#endif

/// Keeps the compiler from unrolling the next loop, which would need too many registers.
#ifdef __CUDA_ARCH__
#define DSMOE_KEEP_LOOP _Pragma("unroll 1")
#else
#define DSMOE_KEEP_LOOP
#endif

namespace dsmoe {

constexpr int kWarpLanes = 32;

/// Number and size of the blocks that run a body.
struct LaunchShape {
  int64_t n_blocks = 0;
  int n_lanes = 256;  ///< a multiple of kWarpLanes
  int64_t shared_bytes = 0;
};

DSMOE_HD inline int64_t blocks_for(int64_t n_items, int64_t per_block) {
  return (n_items + per_block - 1) / per_block;
}

namespace device {

/// The type of arithmetic on a stored type.
template <typename T>
struct WideOf {
  using Type = float;
};
template <>
struct WideOf<double> {
  using Type = double;
};
template <typename T>
using Wide = typename WideOf<T>::Type;

DSMOE_HD inline float load(const Bfloat16& x) {
  const uint32_t bits = static_cast<uint32_t>(x.bits) << 16U;
  float value = 0;
  memcpy(&value, &bits, sizeof value);
  return value;
}
DSMOE_HD inline float load(const float& x) { return x; }
DSMOE_HD inline double load(const double& x) { return x; }

// Rounds to nearest, ties to even; a NaN stays a NaN.
DSMOE_HD inline void store(Bfloat16& to, float x) {
  uint32_t bits = 0;
  memcpy(&bits, &x, sizeof bits);
  const uint32_t rounded = bits + 0x7fffU + ((bits >> 16U) & 1U);
  const bool is_nan = (bits & 0x7fffffffU) > 0x7f800000U;
  to.bits = static_cast<uint16_t>((is_nan ? bits | 0x400000U : rounded) >> 16U);
}
DSMOE_HD inline void store(float& to, float x) { to = x; }
DSMOE_HD inline void store(double& to, double x) { to = x; }

/// Consecutive elements of one memory access; V * sizeof(T) is at most 16 bytes.
template <typename T, int V>
struct alignas(V * sizeof(T)) Pack {
  T at[V];
};

/// Number of elements of a 16-byte access.
template <typename T>
constexpr int kPackSize = 16 / static_cast<int>(sizeof(T));

/// True if packs of V tile rows of `width` elements from `p` on and are aligned.
template <int V, typename T>
DSMOE_HD inline bool is_packable(const T* p, int64_t width) {
  return width % V == 0 && reinterpret_cast<uintptr_t>(p) % (V * sizeof(T)) == 0;
}

template <int V, typename T>
DSMOE_HD inline Pack<T, V> load_pack(const T* p) {
  return *reinterpret_cast<const Pack<T, V>*>(p);
}
template <int V, typename T>
DSMOE_HD inline void store_pack(T* p, const Pack<T, V>& pack) {
  *reinterpret_cast<Pack<T, V>*>(p) = pack;
}

struct Add {
  template <typename V>
  DSMOE_HD V operator()(const V& a, const V& b) const {
    return a + b;
  }
};
struct Max {
  template <typename V>
  DSMOE_HD V operator()(const V& a, const V& b) const {
    return a < b ? b : a;
  }
};

}  // namespace device
}  // namespace dsmoe
