#include "csrc_kernels/block_product/block_product.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/mm.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cstdlib>
#include <tuple>

#include "common/cpu_features.h"
#include "csrc_kernels/common/tensors.h"
#include "csrc_kernels/random_tensors.h"

namespace dsmoe {
namespace {

// Largest difference from at::mm in float64, for C = A . B and then C += A . B.
template <typename B, typename W>
double difference(BlockProducts products, at::ScalarType type, int64_t m, int64_t n, int64_t k) {
  RandomTensors random(9);
  const auto a = random.normal({m, k}, type);
  const auto b = random.normal({k, n}, type);
  const auto right = type == at::kBFloat16
                         ? b.view({k / 2, 2, n}).transpose(1, 2).contiguous()  // [k / 2, n, 2]
                         : b;
  auto c = random.normal({m, n}, type == at::kDouble ? at::kDouble : at::kFloat);
  const auto expected = at::mm(a.to(at::kDouble), b.to(at::kDouble));
  double worst = 0.0;
  for (const bool add : {false, true}) {
    block_product<B, W>(products)(
        m, n, k, k, n, n, add, pointer<const B>(a), pointer<const B>(right), pointer<W>(c));
    const double times = add ? 2.0 : 1.0;
    worst = std::max(worst, max_difference(c.to(at::kDouble), expected * times));
  }
  release_block_products(products);
  return worst;
}

}  // namespace

TEST_CASE("block_product: equals a matrix product", "[csrc_kernels][block_product]") {
  for (const auto& [m, n, k] :
       {std::tuple(1, 1, 2), std::tuple(64, 64, 64), std::tuple(17, 24, 48)}) {
    CAPTURE(m, n, k);
    CHECK(difference<double, double>(BlockProducts::kPortable, at::kDouble, m, n, k) < 1e-12);
    CHECK(difference<float, float>(BlockProducts::kPortable, at::kFloat, m, n, k) < 1e-4);
    if (fastest_block_products() == BlockProducts::kPortable) continue;
    CHECK(difference<float, float>(BlockProducts::kFloat32, at::kFloat, m, n, k) < 1e-4);
    if (fastest_block_products() == BlockProducts::kFloat32) continue;
    CHECK(difference<Bfloat16, float>(BlockProducts::kBfloat16, at::kBFloat16, m, n, k) < 1e-4);
  }
}

TEST_CASE("block_product: bfloat16 is found exactly where the CPU has it",
          "[csrc_kernels][block_product]") {
  const char* lowered = std::getenv("ONEDNN_MAX_CPU_ISA");
  const bool expected = has_fast_bfloat16() && lowered == nullptr;
  CHECK((fastest_block_products() == BlockProducts::kBfloat16) == expected);
  CHECK(fastest_block_products() != BlockProducts::kPortable);
}

}  // namespace dsmoe
