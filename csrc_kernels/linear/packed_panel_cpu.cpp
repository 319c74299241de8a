// Micro-kernels over one panel: R rows times kPanelWidth outputs stay in registers along all of K
// d_in.
#include <array>
#include <cstring>
#include <type_traits>
#include <utility>

#include "csrc_kernels/common/simd.h"
#include "csrc_kernels/linear/packed_panel_kernels.h"

#if defined(__AVX512BF16__)
#include <immintrin.h>
#endif

namespace dsmoe::DSMOE_ISA {
namespace {

#if defined(__AVX512F__)
constexpr int kLaneBytes = 64;
constexpr int kMaxRows = 12;  // 24 of 32 registers hold sums
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
constexpr int64_t kAhead = 2048;  // bytes of the panel that are asked for before they are needed

// Asks for one step's bytes: those kAhead in front of the panel's reading, at its end the beginning
// of the next panel.
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

// rows [K][R] float
template <int R>
void multiply_float32(const PanelProduct& product) {
  Sums<R> sums;
  const std::byte* panel = product.panel;
  Ahead ahead(product, product.d_in * kStepBytes);
  const auto* x = reinterpret_cast<const float*>(product.rows);
  for (int64_t k = 0; k < product.d_in; ++k) {
    Floats weights[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) weights[v] = load_lanes<Floats>(panel + v * kLaneBytes);
    ahead.step();
    add_products<R>(sums, weights, x);
    panel += kPanelWidth * 4;
    x += R;
  }
  sums.store(product.sums);
}

#if defined(__AVX512BF16__)
// rows [K / 2][R][2] bfloat16
template <int R>
void multiply_bfloat16(const PanelProduct& product) {
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

// sums [R][32] int32, begun at the rows' corrections
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
      // Not an intrinsic: GCC 12 warns of its own _mm512_cvtepi32_ps.
      const auto exact = __builtin_convertvector(reinterpret_cast<Ints>(integers[r][v]), Floats);
      const auto result = load_lanes<Floats>(sum) + exact * both;
      __builtin_memcpy(sum, &result, kLaneBytes);
    }
  }
}
#else
// rows [K][R] float; K even: packing fills up with zeros
template <int R>
void multiply_bfloat16(const PanelProduct& product) {
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
// weights' offset of 128
template <int R>
void multiply_int8(const PanelProduct& product) {
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

using Multiply = void (*)(const PanelProduct&);

template <size_t... R>
constexpr auto kernels_by_rows(std::index_sequence<R...> /*rows*/) {
  return std::array<std::array<Multiply, kMaxRows>, 3>{{
      {multiply_float32<static_cast<int>(R) + 1>...},
      {multiply_bfloat16<static_cast<int>(R) + 1>...},
      {multiply_int8<static_cast<int>(R) + 1>...},
  }};
}

void multiply(const PanelProduct& product) {
  static constexpr auto kKernels = kernels_by_rows(std::make_index_sequence<kMaxRows>());
  kKernels[static_cast<size_t>(product.format)][static_cast<size_t>(product.n_rows - 1)](product);
}

int64_t max_rows(PackedFormat format) {
  // Integer sums share the registers with what scales them.
  constexpr int kMaxRowsInt8 = kMaxRows > 8 ? 8 : kMaxRows;
  return format == PackedFormat::kInt8 ? kMaxRowsInt8 : kMaxRows;
}

int64_t row_bytes(PackedFormat format, int64_t d_in) {
  switch (format) {
    case PackedFormat::kFloat32:
      return d_in * 4;
    case PackedFormat::kBfloat16:
      return (d_in + 1) / 2 * (kHasDotProducts ? 4 : 8);
    case PackedFormat::kInt8:
      break;
  }
  return (d_in + 3) / 4 * 4 + (d_in + kQuantBlock - 1) / kQuantBlock * 8;
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

template <typename T>
void pack_pairs(int64_t d_in, int64_t n_rows, const T* const* sources, std::byte* rows) {
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

// kBfloat16 without dot products rounds as they would and widens again.
template <typename T>
void pack_floats(bool rounded, int64_t d_in, int64_t n_rows, const T* const* sources, float* rows) {
  for (int64_t r = 0; r < n_rows; ++r) {
    for (int64_t k = 0; k < d_in; ++k) {
      Bfloat16 narrow;
      const float x = load(sources[r][k]);
      store(narrow, x);
      rows[k * n_rows + r] = rounded ? load(narrow) : x;
    }
    if (rounded && d_in % 2 != 0) rows[d_in * n_rows + r] = 0.0F;
  }
}

template <typename T>
void pack(PackedFormat format,
          int64_t d_in,
          int64_t n_rows,
          const T* const* sources,
          std::byte* rows) {
  switch (format) {
    case PackedFormat::kInt8:
      return pack_int8(d_in, n_rows, sources, rows);
    case PackedFormat::kBfloat16:
      if constexpr (kHasDotProducts) return pack_pairs(d_in, n_rows, sources, rows);
      break;
    case PackedFormat::kFloat32:
      break;
  }
  const bool rounded = format == PackedFormat::kBfloat16;
  pack_floats(rounded, d_in, n_rows, sources, reinterpret_cast<float*>(rows));
}

template <Activation kActivation>
void activate_panel(float weight, const float* gate, float* up) {
#pragma omp simd
  for (int64_t i = 0; i < kPanelWidth; ++i) {
    float y = up[i];
    if constexpr (kActivation == Activation::kSwiglu) y = gate[i] * sigmoid(gate[i]) * up[i];
    if constexpr (kActivation == Activation::kGelu) {
      y = 0.5F * up[i] * (1.0F + erf_of(up[i] * 0.70710678F));
    }
    if constexpr (kActivation == Activation::kGeluTanh) {
      const float inner = 0.79788456F * (up[i] + 0.044715F * up[i] * up[i] * up[i]);
      y = 0.5F * up[i] * (1.0F + tanh_of(inner));
    }
    if constexpr (kActivation == Activation::kSilu) y = up[i] * sigmoid(up[i]);
    if constexpr (kActivation == Activation::kQuickGelu) y = up[i] * sigmoid(1.702F * up[i]);
    if constexpr (kActivation == Activation::kReluSquared) y = up[i] > 0.0F ? up[i] * up[i] : 0.0F;
    up[i] = weight * y;
  }
}

void activate(Activation activation, float weight, const float* gate, float* up) {
  switch (activation) {
    case Activation::kIdentity:
      return activate_panel<Activation::kIdentity>(weight, gate, up);
    case Activation::kGelu:
      return activate_panel<Activation::kGelu>(weight, gate, up);
    case Activation::kGeluTanh:
      return activate_panel<Activation::kGeluTanh>(weight, gate, up);
    case Activation::kSwiglu:
      return activate_panel<Activation::kSwiglu>(weight, gate, up);
    case Activation::kSilu:
      return activate_panel<Activation::kSilu>(weight, gate, up);
    case Activation::kQuickGelu:
      return activate_panel<Activation::kQuickGelu>(weight, gate, up);
    case Activation::kReluSquared:
      return activate_panel<Activation::kReluSquared>(weight, gate, up);
  }
}

template <typename T>
void store_rows(int64_t n, const float* values, const float* bias, T* y) {
  if (bias == nullptr) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) store(y[i], values[i]);
  } else {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) store(y[i], values[i] + bias[i]);
  }
}

}  // namespace

void get_panel_kernels(PanelKernels* kernels) {
  *kernels = {max_rows, row_bytes, multiply, activate};
}

template <typename T>
void get_row_kernels(RowKernels<T>* kernels) {
  *kernels = {pack<T>, store_rows<T>};
}

template void get_row_kernels(RowKernels<float>*);
template void get_row_kernels(RowKernels<Bfloat16>*);

}  // namespace dsmoe::DSMOE_ISA
