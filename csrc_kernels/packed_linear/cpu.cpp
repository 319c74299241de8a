#include "csrc_kernels/common/simd.h"
#include "csrc_kernels/packed_linear/panel_formats.h"

namespace dsmoe {
namespace {

#if defined(__AVX512BF16__)
constexpr int64_t kPairBytes = 4;  // two inputs of a row under kBfloat16
#else
constexpr int64_t kPairBytes = 8;
#endif

void multiply(const PanelProduct& product) {
  switch (product.format) {
    case PackedFormat::kFloat32:
      return multiply_float32(product);
    case PackedFormat::kBfloat16:
      return multiply_bfloat16(product);
    case PackedFormat::kInt8:
      return multiply_int8(product);
  }
}

int64_t max_rows(PackedFormat format) {
  return format == PackedFormat::kInt8 ? kMaxRowsInt8 : kMaxRows;
}

int64_t row_bytes(PackedFormat format, int64_t d_in) {
  switch (format) {
    case PackedFormat::kFloat32:
      return d_in * 4;
    case PackedFormat::kBfloat16:
      return (d_in + 1) / 2 * kPairBytes;
    case PackedFormat::kInt8:
      break;
  }
  return (d_in + 3) / 4 * 4 + (d_in + kQuantBlock - 1) / kQuantBlock * 8;
}

template <typename T>
void pack(PackedFormat format,
          int64_t d_in,
          int64_t n_rows,
          const T* const* sources,
          std::byte* rows) {
  switch (format) {
    case PackedFormat::kFloat32:
      return pack_float32(d_in, n_rows, sources, rows);
    case PackedFormat::kBfloat16:
      return pack_bfloat16(d_in, n_rows, sources, rows);
    case PackedFormat::kInt8:
      return pack_int8(d_in, n_rows, sources, rows);
  }
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

template <>
PanelKernels isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {max_rows, row_bytes, multiply, activate};
}
template <>
RowKernels<float> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {pack, store_rows};
}
template <>
RowKernels<Bfloat16> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {pack, store_rows};
}

}  // namespace dsmoe
