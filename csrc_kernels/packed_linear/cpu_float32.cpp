#include "csrc_kernels/common/simd.h"
#include "csrc_kernels/packed_linear/panel_formats.h"

namespace dsmoe::DSMOE_ISA {
namespace {

// rows [K][R] float
struct Float32Kernel {
  template <int R>
  static void multiply(const PanelProduct& product) {
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
};

}  // namespace

void multiply_float32(const PanelProduct& product) {
  multiply_by_rows<Float32Kernel, kMaxRows>(product);
}

template <typename T>
void pack_float32(int64_t d_in, int64_t n_rows, const T* const* sources, std::byte* rows) {
  auto* values = reinterpret_cast<float*>(rows);
  for (int64_t r = 0; r < n_rows; ++r) {
    for (int64_t k = 0; k < d_in; ++k) values[k * n_rows + r] = load(sources[r][k]);
  }
}
template void pack_float32(int64_t, int64_t, const float* const*, std::byte*);
template void pack_float32(int64_t, int64_t, const Bfloat16* const*, std::byte*);

}  // namespace dsmoe::DSMOE_ISA
