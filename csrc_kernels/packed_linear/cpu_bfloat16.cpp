#include <cstring>
#include <type_traits>

#include "csrc_kernels/common/simd.h"
#include "csrc_kernels/packed_linear/panel_formats.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace dsmoe::DSMOE_ISA {
namespace {

#if defined(__AVX512BF16__)
// rows [K / 2][R][2] bfloat16
struct Bfloat16Kernel {
  template <int R>
  static void multiply(const PanelProduct& product) {
    Sums<R> sums;
    const std::byte* panel = product.panel;
    Ahead ahead(product, (product.d_in + 1) / 2 * kStepBytes);
    const auto* x = reinterpret_cast<const int32_t*>(product.rows);
    for (int64_t k = 0; k < product.d_in; k += 2) {
      const auto low = load_lanes<__m512bh>(panel);
      const auto high = load_lanes<__m512bh>(panel + kLaneBytes);
      ahead.step();
#pragma GCC unroll 12
      for (int r = 0; r < R; ++r) {
        const auto pair = reinterpret_cast<__m512bh>(_mm512_set1_epi32(x[r]));
        sums.of[r][0] = _mm512_dpbf16_ps(sums.of[r][0], pair, low);
        sums.of[r][1] = _mm512_dpbf16_ps(sums.of[r][1], pair, high);
      }
      panel += kPanelWidth * 4;
      x += R;
    }
    sums.store(product.sums);
  }
};
#else
// rows [K][R] float; K is even: packing appends a zero
struct Bfloat16Kernel {
  template <int R>
  static void multiply(const PanelProduct& product) {
    Sums<R> sums;
    const std::byte* panel = product.panel;
    Ahead ahead(product, (product.d_in + 1) / 2 * kStepBytes);
    const auto* x = reinterpret_cast<const float*>(product.rows);
    for (int64_t k = 0; k < product.d_in; k += 2) {
      Floats first[kVectors];
      Floats second[kVectors];
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        const auto pairs = load_lanes<Words>(panel + v * kLaneBytes);
        first[v] = reinterpret_cast<Floats>(pairs << 16);
        second[v] = reinterpret_cast<Floats>(pairs & 0xffff0000U);
      }
      ahead.step();
      add_products<R>(sums, first, x);
      add_products<R>(sums, second, x + R);
      panel += kPanelWidth * 4;
      x += 2 * R;
    }
    sums.store(product.sums);
  }
};
#endif

}  // namespace

void multiply_bfloat16(const PanelProduct& product) {
  multiply_by_rows<Bfloat16Kernel, kMaxRows>(product);
}

#if defined(__AVX512BF16__)
template <typename T>
void pack_bfloat16(int64_t d_in, int64_t n_rows, const T* const* sources, std::byte* rows) {
  auto* pairs = reinterpret_cast<Bfloat16*>(rows);
  if constexpr (std::is_same_v<T, Bfloat16>) {
    if (n_rows == 1 && d_in % 2 == 0) {
      std::memcpy(rows, sources[0], static_cast<size_t>(d_in) * sizeof(T));
      return;
    }
  }
  for (int64_t r = 0; r < n_rows; ++r) {
    const T* source = sources[r];
    for (int64_t k = 0; k < d_in; ++k) {
      Bfloat16& to = pairs[(k / 2 * n_rows + r) * 2 + k % 2];
      if constexpr (std::is_same_v<T, Bfloat16>) {
        to = source[k];
      } else {
        store(to, source[k]);
      }
    }
    if (d_in % 2 != 0) pairs[(d_in / 2 * n_rows + r) * 2 + 1] = Bfloat16{0};
  }
}
#else
// Rounds to bfloat16, as the dot-product instructions require, and widens again.
template <typename T>
void pack_bfloat16(int64_t d_in, int64_t n_rows, const T* const* sources, std::byte* rows) {
  auto* values = reinterpret_cast<float*>(rows);
  for (int64_t r = 0; r < n_rows; ++r) {
    for (int64_t k = 0; k < d_in; ++k) {
      Bfloat16 narrow;
      store(narrow, load(sources[r][k]));
      values[k * n_rows + r] = load(narrow);
    }
    if (d_in % 2 != 0) values[d_in * n_rows + r] = 0.0F;
  }
}
#endif
template void pack_bfloat16(int64_t, int64_t, const float* const*, std::byte*);
template void pack_bfloat16(int64_t, int64_t, const Bfloat16* const*, std::byte*);

}  // namespace dsmoe::DSMOE_ISA
