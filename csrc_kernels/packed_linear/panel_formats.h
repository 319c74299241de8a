#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "csrc_kernels/packed_linear/kernels.h"

/// Parts of the micro-kernels over one panel, which have a file per number format. R rows times
/// kPanelWidth outputs stay in registers along all of K d_in. For files that are compiled per
/// instruction set.
namespace dsmoe {
inline namespace DSMOE_ISA {

#if defined(__AVX512F__)
constexpr int kLaneBytes = 64;
constexpr int kMaxRows = 12;  // sums take 24 of 32 registers
#elif defined(__AVX2__)
constexpr int kLaneBytes = 32;
constexpr int kMaxRows = 3;
#else
constexpr int kLaneBytes = 16;
constexpr int kMaxRows = 1;
#endif
#if defined(__AVX512BF16__)
constexpr bool kHasDotProducts = true;
#else
constexpr bool kHasDotProducts = false;
#endif
constexpr int kLanes = kLaneBytes / 4;
constexpr int kVectors = static_cast<int>(kPanelWidth) / kLanes;
constexpr int64_t kStepBytes = kPanelWidth * 4;
constexpr int64_t kAhead = 2048;  // bytes between a prefetch and its use

// Prefetches the bytes of one step: those kAhead bytes ahead of the read, and at the end of the
// panel the beginning of the next one.
class Ahead {
 public:
  explicit Ahead(const PanelProduct& product, int64_t panel_bytes)
      : at_(product.is_cached ? product.next : product.panel + kAhead),
        end_(product.is_cached ? nullptr : product.panel + panel_bytes),
        next_(product.next) {}

  void step() {
    if (at_ == end_) at_ = next_;
    __builtin_prefetch(at_, 0, 2);
    __builtin_prefetch(at_ + 64, 0, 2);
    at_ += kStepBytes;
  }

 private:
  const std::byte* at_;
  const std::byte* end_;
  const std::byte* next_;
};

using Floats = float __attribute__((vector_size(kLaneBytes)));
using Ints = int32_t __attribute__((vector_size(kLaneBytes)));
using Words = uint32_t __attribute__((vector_size(kLaneBytes)));

template <typename V, typename P>
inline V load_lanes(const P* from) {
  V lanes;
  __builtin_memcpy(&lanes, from, sizeof(lanes));
  return lanes;
}

template <typename T>
inline T load_one(const std::byte* from) {
  T value;
  __builtin_memcpy(&value, from, sizeof(value));
  return value;
}

template <int R>
struct Sums {
  Floats of[R][kVectors] = {};

  void store(float* sums) const {
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        __builtin_memcpy(sums + r * kPanelWidth + v * kLanes, &of[r][v], kLaneBytes);
      }
    }
  }
};

template <int R>
inline void add_products(Sums<R>& sums, const Floats (&weights)[kVectors], const float* x) {
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) sums.of[r][v] += x[r] * weights[v];
  }
}

using Multiply = void (*)(const PanelProduct&);

/// Calls Kernel::multiply<R> for R = product.n_rows, 1 .. kMost.
template <typename Kernel, int kMost>
void multiply_by_rows(const PanelProduct& product) {
  static constexpr auto kKernels = []<int... R>(std::integer_sequence<int, R...>) {
    return std::array<Multiply, static_cast<size_t>(kMost)>{&Kernel::template multiply<R + 1>...};
  }
  (std::make_integer_sequence<int, kMost>());
  kKernels[static_cast<size_t>(product.n_rows - 1)](product);
}

constexpr int kMaxRowsInt8 = kMaxRows > 8 ? 8 : kMaxRows;  // scaling the sums needs registers

void multiply_float32(const PanelProduct& product);
void multiply_bfloat16(const PanelProduct& product);
void multiply_int8(const PanelProduct& product);

/// RowKernels::pack for one format. T is float or Bfloat16.
template <typename T>
void pack_float32(int64_t d_in, int64_t n_rows, const T* const* sources, std::byte* rows);
template <typename T>
void pack_bfloat16(int64_t d_in, int64_t n_rows, const T* const* sources, std::byte* rows);
template <typename T>
void pack_int8(int64_t d_in, int64_t n_rows, const T* const* sources, std::byte* rows);

}  // namespace DSMOE_ISA
}  // namespace dsmoe
