#include "csrc_kernels/block_product/block_product.h"

#include <ATen/native/CPUBlas.h>
#include <c10/util/BFloat16.h>

#include <algorithm>
#include <exception>

namespace dsmoe {
namespace {

void multiply(int64_t m,
              int64_t n,
              int64_t k,
              int64_t ld_a,
              int64_t ld_b,
              int64_t ld_c,
              bool add,
              const Bfloat16* a,
              const Bfloat16* b,
              float* c) {
  at::native::cpublas::brgemm(m,
                              n,
                              k,
                              ld_a,
                              ld_b,
                              ld_c,
                              add,
                              reinterpret_cast<const at::BFloat16*>(a),
                              reinterpret_cast<const at::BFloat16*>(b),
                              c,
                              /*is_vnni=*/true);
}

void multiply(int64_t m,
              int64_t n,
              int64_t k,
              int64_t ld_a,
              int64_t ld_b,
              int64_t ld_c,
              bool add,
              const float* a,
              const float* b,
              float* c) {
  at::native::cpublas::brgemm(m, n, k, ld_a, ld_b, ld_c, add, a, b, c, /*is_vnni=*/false);
}

// Multiplies ones by ones and adds them to ones: every entry of the result is k + 1.
template <typename B>
bool works(B one) {
  constexpr int64_t kSize = 32;
  B factor[kSize * kSize];
  float sums[kSize * kSize];
  std::fill_n(factor, kSize * kSize, one);
  std::fill_n(sums, kSize * kSize, 1.0F);
  // oneDNN reports missing instructions only by an exception from the first call.
  try {
    multiply(kSize, kSize, kSize, kSize, kSize, kSize, true, factor, factor, sums);
  } catch (const std::exception&) {
    return false;
  }
  return std::all_of(sums, sums + kSize * kSize, [](float x) { return x == kSize + 1; });
}

}  // namespace

BlockProducts fastest_block_products() {
  static const BlockProducts products = [] {
    if (!works(1.0F)) return BlockProducts::kPortable;
    return works(Bfloat16{0x3f80}) ? BlockProducts::kBfloat16 : BlockProducts::kFloat32;
  }();
  return products;
}

template <>
BlockProduct<Bfloat16, float> block_product(BlockProducts) {
  return multiply;
}
template <>
BlockProduct<float, float> block_product(BlockProducts products) {
  if (products == BlockProducts::kPortable) {
    return cpu_kernels<BlockProductKernels<float>>().multiply;
  }
  return multiply;
}
template <>
BlockProduct<double, double> block_product(BlockProducts) {
  return cpu_kernels<BlockProductKernels<double>>().multiply;
}

void release_block_products(BlockProducts products) {
  if (products == BlockProducts::kBfloat16) at::native::cpublas::brgemm_release();
}

}  // namespace dsmoe
