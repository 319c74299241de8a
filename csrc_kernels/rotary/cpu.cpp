#include "csrc_kernels/common/simd.h"
#include "csrc_kernels/rotary/kernels.h"

namespace dsmoe {
namespace {

template <typename T, typename W>
void rotate(const RotaryRows<T, W>& rows, W direction) {
  constexpr int64_t kSerialElements = 1 << 14;  // below, waking threads costs more than the work
  const int64_t n_heads = rows.n_heads;
  const int64_t half = rows.half;
#pragma omp parallel for if (rows.n_rows * n_heads * half > kSerialElements)
  for (int64_t row = 0; row < rows.n_rows; ++row) {
    const W* cos = rows.cos + row % rows.n_table_rows * half;
    const W* sin = rows.sin + row % rows.n_table_rows * half;
    for (int64_t head = 0; head < n_heads; ++head) {
      const T* first = rows.x + (row * n_heads + head) * 2 * half;
      const T* second = first + half;
      T* y_first = rows.y + (row * n_heads + head) * 2 * half;
      T* y_second = y_first + half;
#pragma omp simd simdlen(4)
      for (int64_t i = 0; i < half; ++i) {
        const W a = load(first[i]);
        const W b = load(second[i]);
        const W s = direction * sin[i];
        store(y_first[i], a * cos[i] - b * s);
        store(y_second[i], b * cos[i] + a * s);
      }
    }
  }
}

}  // namespace

template <>
RotaryKernels<Bfloat16, float> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {rotate};
}
template <>
RotaryKernels<float, float> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {rotate};
}
template <>
RotaryKernels<double, double> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {rotate};
}

}  // namespace dsmoe
