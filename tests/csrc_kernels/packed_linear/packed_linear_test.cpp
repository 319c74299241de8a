#include "csrc_kernels/packed_linear/packed_linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>

#include <catch2/catch.hpp>
#include <limits>
#include <vector>

#include "common/thread_pool.h"
#include "csrc_kernels/random_tensors.h"
#include "support/poisoned_memory.h"

namespace dsmoe {
namespace {

struct PackedCase {
  int64_t n_rows;
  int64_t d_in;
  int64_t d_out;
};

const std::vector<PackedCase> kPackedCases = {{1, 1, 1},
                                              {1, 64, 32},
                                              {3, 7, 5},
                                              {5, 130, 33},
                                              {12, 256, 96},
                                              {13, 127, 31},
                                              {25, 129, 64},
                                              {40, 300, 70},
                                              {0, 8, 8}};
const PackedFormat kPackedFormats[] = {PackedFormat::kFloat32,
                                       PackedFormat::kBfloat16,
                                       PackedFormat::kInt8};

at::Tensor run_packed(const at::Tensor& x,
                      const PackedLinear& weight,
                      at::ScalarType type = at::kFloat) {
  return packed_linear(x, {weight}, type)[0];
}

// At random: relative to the sums' standard deviation; int8 rounds 1 in 254 of the largest.
double packed_tolerance(PackedFormat format, int64_t d_in) {
  const double deviation = std::sqrt(static_cast<double>(d_in));
  return (format == PackedFormat::kInt8 ? 5e-2 : 2e-6) * (1.0 + deviation);
}

}  // namespace

TEST_CASE("packed_linear: equals its float64 reference on odd sizes", "[kernels][packed]") {
  const PoisonedMemory poisoned;
  for (const auto format : kPackedFormats) {
    for (const auto& shape : kPackedCases) {
      for (const auto type : {at::kFloat, at::kBFloat16}) {
        INFO("format " << static_cast<int>(format) << ", " << shape.n_rows << " x " << shape.d_in
                       << " x " << shape.d_out << " " << type);
        RandomTensors random(31);
        // Numbers that bfloat16 holds: what is left are the sums.
        const auto x = random.normal({shape.n_rows, shape.d_in}, at::kBFloat16).to(type);
        const auto weight = random.normal({shape.d_out, shape.d_in}, at::kFloat);
        const auto bias = random.normal({shape.d_out}, at::kFloat);
        const PackedLinear packed{pack_matrix(weight, format), bias};
        const auto y = run_packed(x, packed);
        CHECK(max_difference(y, packed_linear_ref(x, packed, at::kFloat)) <=
              packed_tolerance(format, shape.d_in));
        CHECK(at::equal(run_packed(x, packed, at::kBFloat16), y.to(at::kBFloat16)));
        const PackedLinear unbiased{packed.weight, {}};
        CHECK(max_difference(run_packed(x, unbiased) + bias, y) <= 1e-5);
      }
    }
  }
}

TEST_CASE("packed_linear: a worked value, the same in every format", "[kernels][packed]") {
  // [1 2 127] . [3 -1 127], [0 127 -2] and their sums with the bias
  const auto x = at::tensor({1.0F, 2.0F, 127.0F}).view({1, 3});
  const auto weight = at::tensor({3.0F, -1.0F, 127.0F, 0.0F, 127.0F, -2.0F}).view({2, 3});
  const auto bias = at::tensor({0.5F, -1.0F});
  const auto expected = at::tensor({3.0F - 2.0F + 16129.0F + 0.5F, 254.0F - 254.0F - 1.0F});
  for (const auto format : kPackedFormats) {
    CHECK(max_difference(run_packed(x, {pack_matrix(weight, format), bias}),
                         expected.view({1, 2})) < 5e-3);
  }
}

TEST_CASE("packed_linear: int8 sums of integers are exact", "[kernels][packed]") {
  // The largest of each block is 127, so that every scale is one and nothing is rounded.
  auto x = at::randint(-127, 128, {9, 300}, at::kFloat);
  auto weight = at::randint(-127, 128, {40, 300}, at::kFloat);
  for (const int64_t block : {0, 128, 256}) {
    x.select(1, block).fill_(-127);
    weight.select(1, block + 1).fill_(127);
  }
  const auto y = run_packed(x, {pack_matrix(weight, PackedFormat::kInt8)});
  const auto expected = x.to(at::kDouble).matmul(weight.to(at::kDouble).t());
  // Up to 4.8e6, below 2^24: exact in float32 too.
  CHECK(at::equal(y.to(at::kDouble), expected));
}

TEST_CASE("packed_linear: several weights at once equal each alone", "[kernels][packed]") {
  RandomTensors random(5);
  const auto x = random.normal({2, 3, 70}, at::kFloat);
  std::vector<PackedLinear> weights;
  for (const int64_t d_out : {1, 40, 64}) {
    weights.push_back({pack_matrix(random.normal({d_out, 70}), PackedFormat::kBfloat16)});
  }
  const auto together = packed_linear(x, weights, at::kFloat);
  REQUIRE(together.size() == 3);
  for (size_t i = 0; i < weights.size(); ++i) {
    CHECK(together[i].sizes() == at::IntArrayRef({2, 3, weights[i].weight.shape.d_out}));
    CHECK(at::equal(together[i], run_packed(x, weights[i])));
  }
}

TEST_CASE("packed_linear: a row's bits depend on neither the other rows nor the threads",
          "[kernels][packed]") {
  const int threads = kernel_threads().n_threads();
  for (const auto format : kPackedFormats) {
    RandomTensors random(7);
    const auto x = random.normal({70, 261}, at::kBFloat16);
    const PackedLinear packed{pack_matrix(random.normal({100, 261}), format)};
    set_kernel_threads(1);
    const auto whole = run_packed(x, packed);
    std::vector<at::Tensor> alone;
    for (int64_t row = 0; row < 70; ++row) alone.push_back(run_packed(x.narrow(0, row, 1), packed));
    CHECK(at::equal(at::cat(alone, 0), whole));
    set_kernel_threads(3);
    CHECK(at::equal(run_packed(x, packed), whole));
    CHECK(at::equal(
        at::cat({run_packed(x.narrow(0, 0, 29), packed), run_packed(x.narrow(0, 29, 41), packed)},
                0),
        whole));
  }
  set_kernel_threads(threads);
}

TEST_CASE("packed_linear: a NaN stays in its row", "[kernels][packed]") {
  for (const auto format : {PackedFormat::kFloat32, PackedFormat::kBfloat16}) {
    RandomTensors random(9);
    auto x = random.normal({5, 33}, at::kFloat);
    const PackedLinear packed{pack_matrix(random.normal({34, 33}), format)};
    const auto before = run_packed(x, packed);
    x[2][32] = std::numeric_limits<float>::quiet_NaN();
    const auto after = run_packed(x, packed);
    CHECK(after[2].isnan().all().item<bool>());
    for (const int64_t row : {0, 1, 3, 4}) CHECK(at::equal(after[row], before[row]));
  }
}

TEST_CASE("pack_matrix: keeps what the format can hold", "[kernels][packed]") {
  RandomTensors random(3);
  const auto weight = random.normal({4 * 9, 135}, at::kFloat);
  CHECK(at::equal(unpack_matrix(pack_matrix(weight, PackedFormat::kFloat32, 4)), weight));
  CHECK(at::equal(unpack_matrix(pack_matrix(weight, PackedFormat::kBfloat16, 4)),
                  weight.to(at::kBFloat16).to(at::kFloat)));
  const auto columns = pack_matrix(weight, PackedFormat::kFloat32, 5, ExpertAxis::kColumns);
  CHECK(columns.shape.d_out == 36);
  CHECK(columns.shape.d_in == 27);
  CHECK(at::equal(unpack_matrix(columns, ExpertAxis::kColumns), weight));

  const auto int8 = unpack_matrix(pack_matrix(weight, PackedFormat::kInt8, 4));
  for (int64_t begin = 0; begin < 135; begin += kQuantBlock) {
    const int64_t n = std::min(kQuantBlock, 135 - begin);
    const auto block = weight.narrow(1, begin, n);
    const auto half_step = block.abs().amax(1, true) / 254.0;
    CHECK(((int8.narrow(1, begin, n) - block).abs() <= half_step * 1.0001).all().item<bool>());
  }
  CHECK_THROWS_AS(pack_matrix(weight, PackedFormat::kFloat32, 5), c10::Error);
}

TEST_CASE("packed_linear: wrong shapes and types throw", "[kernels][packed]") {
  RandomTensors random(1);
  const PackedLinear packed{pack_matrix(random.normal({6, 8}), PackedFormat::kFloat32)};
  const auto x = random.normal({2, 8}, at::kFloat);
  CHECK_THROWS_AS(run_packed(random.normal({2, 7}, at::kFloat), packed), c10::Error);
  CHECK_THROWS_AS(run_packed(random.normal({8, 2}, at::kFloat).t(), packed), c10::Error);
  CHECK_THROWS_AS(run_packed(x.to(at::kDouble), packed), c10::Error);
  CHECK_THROWS_AS(run_packed(x, packed, at::kDouble), c10::Error);
  CHECK_THROWS_AS(run_packed(x, {packed.weight, random.normal({5}, at::kFloat)}), c10::Error);
  CHECK_THROWS_AS(
      packed_linear(
          x, {packed, {pack_matrix(random.normal({6, 8}), PackedFormat::kInt8)}}, at::kFloat),
      c10::Error);
}

}  // namespace dsmoe
