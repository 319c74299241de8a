#include <algorithm>

#include "csrc_kernels/block_product/block_product.h"

namespace dsmoe {
namespace {

template <typename W>
void multiply(int64_t m,
              int64_t n,
              int64_t k,
              int64_t ld_a,
              int64_t ld_b,
              int64_t ld_c,
              bool add,
              const W* a,
              const W* b,
              W* c) {
  for (int64_t i = 0; i < m; ++i) {
    W* c_row = c + i * ld_c;
    if (!add) std::fill_n(c_row, n, W(0));
    for (int64_t j = 0; j < k; ++j) {
      const W factor = a[i * ld_a + j];
      const W* b_row = b + j * ld_b;
#pragma omp simd
      for (int64_t l = 0; l < n; ++l) c_row[l] += factor * b_row[l];
    }
  }
}

}  // namespace

template <>
BlockProductKernels<float> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {multiply};
}
template <>
BlockProductKernels<double> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {multiply};
}

}  // namespace dsmoe
