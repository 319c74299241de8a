#include <cstring>

#include "csrc_kernels/common/simd.h"
#include "csrc_kernels/packed_linear/panel_formats.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace dsmoe::DSMOE_ISA {
namespace {

#if defined(__AVX512BF16__)
// sums [R][32] int32; they start at the corrections of the rows
template <int R>
inline void add_int8_products(int64_t n_steps,
                              const std::byte* panel,
                              const std::byte* x,
                              const std::byte* corrections,
                              Ahead& ahead,
                              __m512i (&sums)[R][2]) {
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
    sums[r][0] = sums[r][1] = _mm512_set1_epi32(load_one<int32_t>(corrections + 4 * r));
  }
  for (int64_t step = 0; step < n_steps; ++step) {
    const auto low = load_lanes<__m512i>(panel);
    const auto high = load_lanes<__m512i>(panel + kLaneBytes);
    ahead.step();
#pragma GCC unroll 12
    for (int r = 0; r < R; ++r) {
      const auto four = _mm512_set1_epi32(load_one<int32_t>(x + 4 * r));
      sums[r][0] = _mm512_dpbusd_epi32(sums[r][0], low, four);
      sums[r][1] = _mm512_dpbusd_epi32(sums[r][1], high, four);
    }
    panel += kPanelWidth * 4;
    x += 4 * R;
  }
}

// One block of inputs: sums += scale of the row * scale of the output * exact integer sum.
template <int R>
inline void add_int8_block(int64_t n_steps,
                           const std::byte* panel,
                           const std::byte* x,
                           Ahead& ahead,
                           float* sums) {
  const std::byte* scales = x + n_steps * 4 * R;
  __m512i integers[R][2];
  add_int8_products<R>(n_steps, panel, x, scales + 4 * R, ahead, integers);
  ahead.step();  // the scales
  const std::byte* weight_scales = panel + n_steps * kPanelWidth * 4;
#pragma GCC unroll 12
  for (int r = 0; r < R; ++r) {
    const auto scale = load_one<float>(scales + 4 * r);
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      float* sum = sums + r * kPanelWidth + v * kLanes;
      const auto both = scale * load_lanes<Floats>(weight_scales + v * kLaneBytes);
      // Not an intrinsic: GCC 12 warns about the body of _mm512_cvtepi32_ps.
      const auto exact = __builtin_convertvector(reinterpret_cast<Ints>(integers[r][v]), Floats);
      const auto result = load_lanes<Floats>(sum) + exact * both;
      __builtin_memcpy(sum, &result, kLaneBytes);
    }
  }
}
#else
template <int R>
inline void add_int8_block(int64_t n_steps,
                           const std::byte* panel,
                           const std::byte* x,
                           Ahead& ahead,
                           float* sums) {
  const std::byte* scales = x + n_steps * 4 * R;
  const std::byte* weight_scales = panel + n_steps * kPanelWidth * 4;
  const auto* weights = reinterpret_cast<const uint8_t*>(panel);
  const auto* values = reinterpret_cast<const int8_t*>(x);
  for (int r = 0; r < R; ++r) {
    int32_t integers[kPanelWidth];
    for (auto& integer : integers) integer = load_one<int32_t>(scales + 4 * (R + r));
    for (int64_t step = 0; step < n_steps; ++step) {
      if (r == 0) ahead.step();
      const int8_t* four = values + (step * R + r) * 4;
#pragma omp simd
      for (int64_t i = 0; i < kPanelWidth; ++i) {
        const uint8_t* w = weights + (step * kPanelWidth + i) * 4;
        integers[i] += w[0] * four[0] + w[1] * four[1] + w[2] * four[2] + w[3] * four[3];
      }
    }
    const auto scale = load_one<float>(scales + 4 * r);
    for (int64_t i = 0; i < kPanelWidth; ++i) {
      const float both = scale * load_one<float>(weight_scales + 4 * i);
      sums[r * kPanelWidth + i] += static_cast<float>(integers[i]) * both;
    }
  }
}
#endif

// rows, per block of inputs: [K / 4][R][4] int8, [R] float scales, [R] int32 corrections of the
// offset of 128 in the weights
struct Int8Kernel {
  template <int R>
  static void multiply(const PanelProduct& product) {
    for (int64_t i = 0; i < R * kPanelWidth; ++i) product.sums[i] = 0.0F;
    const std::byte* panel = product.panel;
    const std::byte* x = product.rows;
    const PackedShape shape{PackedFormat::kInt8, 1, kPanelWidth, product.d_in};
    Ahead ahead(product, shape.panel_bytes());
    for (int64_t begin = 0; begin < product.d_in; begin += kQuantBlock) {
      const int64_t left = product.d_in - begin;
      const int64_t n_steps = ((left < kQuantBlock ? left : kQuantBlock) + 3) / 4;
      add_int8_block<R>(n_steps, panel, x, ahead, product.sums);
      panel += (n_steps + 1) * kPanelWidth * 4;
      x += (n_steps * 4 + 8) * R;
    }
  }
};

}  // namespace

void multiply_int8(const PanelProduct& product) {
  multiply_by_rows<Int8Kernel, kMaxRowsInt8>(product);
}

template <typename T>
void pack_int8(int64_t d_in, int64_t n_rows, const T* const* sources, std::byte* rows) {
  for (int64_t begin = 0; begin < d_in; begin += kQuantBlock) {
    const int64_t length = d_in - begin < kQuantBlock ? d_in - begin : kQuantBlock;
    const int64_t n_steps = (length + 3) / 4;
    std::byte* tail = rows + n_steps * 4 * n_rows;
    for (int64_t r = 0; r < n_rows; ++r) {
      float x[kQuantBlock] = {};
      for (int64_t k = 0; k < length; ++k) x[k] = load(sources[r][begin + k]);
      float largest = 0.0F;
#pragma omp simd reduction(max : largest)
      for (int64_t k = 0; k < kQuantBlock; ++k) {
        const float magnitude = __builtin_fabsf(x[k]);
        largest = magnitude > largest ? magnitude : largest;
      }
      const float scale = largest / 127.0F;
      const float inverse = largest > 0.0F ? 127.0F / largest : 0.0F;
      int8_t values[kQuantBlock];
      int32_t sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t k = 0; k < kQuantBlock; ++k) {
        const auto value = static_cast<int32_t>(__builtin_rintf(x[k] * inverse));
        values[k] = static_cast<int8_t>(value);
        sum += value;
      }
      for (int64_t step = 0; step < n_steps; ++step) {
        std::memcpy(rows + (step * n_rows + r) * 4, values + 4 * step, 4);
      }
      const int32_t correction = -128 * sum;
      std::memcpy(tail + 4 * r, &scale, 4);
      std::memcpy(tail + 4 * (n_rows + r), &correction, 4);
    }
    rows = tail + 8 * n_rows;
  }
}
template void pack_int8(int64_t, int64_t, const float* const*, std::byte*);
template void pack_int8(int64_t, int64_t, const Bfloat16* const*, std::byte*);

}  // namespace dsmoe::DSMOE_ISA
