#include "csrc_kernels/causal_attention/causal_attention.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <catch2/catch.hpp>
#include <cmath>
#include <utility>
#include <vector>

#include "csrc_kernels/random_tensors.h"

namespace dsmoe {
namespace {

constexpr HeadLayout kLayouts[] = {HeadLayout::kKvMajor, HeadLayout::kExpertMajor};

struct Size {
  int64_t batch;
  int64_t seq;
  int64_t n_heads;
  int64_t n_kv_heads;
  int64_t head_dim;
};

// Below, at and above blocks of queries (32) and a chunk of keys (256); widths no vector divides.
const std::vector<Size> kSizes = {{2, 1, 2, 1, 8},
                                  {1, 3, 2, 2, 1},
                                  {2, 16, 4, 2, 24},
                                  {1, 63, 3, 1, 13},
                                  {2, 64, 4, 2, 64},
                                  {1, 65, 2, 2, 20},
                                  {1, 127, 6, 3, 24},
                                  {1, 256, 2, 1, 7},
                                  {1, 257, 2, 1, 40},
                                  {1, 600, 2, 2, 128}};

struct Inputs {
  at::Tensor q;       // [batch, seq, n_heads, head_dim]
  at::Tensor k;       // [batch, seq, n_kv_heads, head_dim]
  at::Tensor v;       // like k
  at::Tensor grad_y;  // like q
};

Inputs make_inputs(const Size& size, at::ScalarType type, uint64_t seed = 5) {
  RandomTensors random(seed);
  const auto normal = [&](int64_t heads) {
    return random.normal({size.batch, size.seq, heads, size.head_dim}, type);
  };
  return {
      normal(size.n_heads), normal(size.n_kv_heads), normal(size.n_kv_heads), normal(size.n_heads)};
}

struct Results {
  at::Tensor y;
  at::Tensor grad_q;
  at::Tensor grad_k;
  at::Tensor grad_v;

  std::vector<at::Tensor> all() const { return {y, grad_q, grad_k, grad_v}; }
};

template <typename Attention>
Results run(const Inputs& inputs, const Attention& attention) {
  const auto q = leaf_copy(inputs.q);
  const auto k = leaf_copy(inputs.k);
  const auto v = leaf_copy(inputs.v);
  const auto y = attention(q, k, v);
  y.backward(inputs.grad_y);
  return {y.detach(), q.grad(), k.grad(), v.grad()};
}

Results run_own(const Inputs& inputs,
                HeadLayout layout,
                BlockProducts products = fastest_block_products()) {
  return run(inputs, [&](const auto& q, const auto& k, const auto& v) {
    return causal_attention(q, k, v, layout, products);
  });
}

Results run_reference(const Inputs& inputs, HeadLayout layout) {
  const Inputs wide{inputs.q.to(at::kDouble),
                    inputs.k.to(at::kDouble),
                    inputs.v.to(at::kDouble),
                    inputs.grad_y.to(at::kDouble)};
  return run(wide, [&](const auto& q, const auto& k, const auto& v) {
    return causal_attention_ref(q, k, v, layout);
  });
}

// LibTorch's own, which has the kKvMajor layout only.
Results run_library(const Inputs& inputs) {
  return run(inputs, [](const auto& q, const auto& k, const auto& v) {
    return at::scaled_dot_product_attention(q.transpose(1, 2),
                                            k.transpose(1, 2),
                                            v.transpose(1, 2),
                                            {},
                                            0.0,
                                            /*is_causal=*/true,
                                            std::nullopt,
                                            /*enable_gqa=*/true)
        .transpose(1, 2);
  });
}

// Largest difference of y and the gradients, each against its own largest entry or 1.
double distance(const Results& a, const Results& b) {
  double worst = 0.0;
  for (size_t i = 0; i < 4; ++i) {
    const auto x = a.all()[i].to(at::kDouble);
    const auto y = b.all()[i].to(at::kDouble);
    const double difference = max_difference(x, y) / std::max(1.0, y.abs().max().item<double>());
    if (!(difference <= worst)) worst = difference;  // keeps a NaN
  }
  return worst;
}

bool same_bits(const Results& a, const Results& b) {
  for (size_t i = 0; i < 4; ++i) {
    if (!at::equal(a.all()[i], b.all()[i])) return false;
  }
  return true;
}

std::vector<BlockProducts> available_products() {
  std::vector<BlockProducts> products{BlockProducts::kPortable, BlockProducts::kFloat32};
  if (fastest_block_products() == BlockProducts::kBfloat16) {
    products.push_back(BlockProducts::kBfloat16);
  }
  return products;
}

void check_against_reference(at::ScalarType type, double tolerance) {
  for (const auto& size : kSizes) {
    const auto inputs = make_inputs(size, type);
    for (const auto layout : kLayouts) {
      const auto reference = run_reference(inputs, layout);
      for (const auto products : available_products()) {
        CAPTURE(size.seq, size.head_dim, static_cast<int>(layout), static_cast<int>(products));
        CHECK(distance(run_own(inputs, layout, products), reference) < tolerance);
      }
    }
  }
}

}  // namespace

TEST_CASE("causal_attention: worked values and gradients", "[csrc_kernels][attention]") {
  // Scale 1/2: the second query scores 0 and ln 3, so it takes a quarter and three quarters.
  const double ln3 = std::log(3.0);
  const auto rows = [](std::vector<double> values) {
    return at::tensor(values, at::kDouble).view({1, 2, 1, 4}).requires_grad_(true);
  };
  const auto q = rows({5, 1, 0, 0, 2 * ln3, 0, 0, 0});
  const auto k = rows({0, 0, 0, 0, 1, 0, 0, 0});
  const auto v = rows({8, 0, 0, 0, 4, 0, 0, 0});
  const auto y = causal_attention(q, k, v, HeadLayout::kKvMajor);
  CHECK(y[0][0][0][0].item<double>() == Approx(8).epsilon(1e-12));
  CHECK(y[0][1][0][0].item<double>() == Approx(5).epsilon(1e-12));
  y.backward(at::tensor({0., 0., 0., 0., 1., 0., 0., 0.}, at::kDouble).view({1, 2, 1, 4}));
  CHECK(v.grad()[0][0][0][0].item<double>() == Approx(0.25).epsilon(1e-12));
  CHECK(v.grad()[0][1][0][0].item<double>() == Approx(0.75).epsilon(1e-12));
  // Score gradients p (v - y) = 0.25 * 3 and 0.75 * -1; times scale and the other factor.
  CHECK(q.grad()[0][1][0][0].item<double>() == Approx(-0.75 * 0.5).epsilon(1e-12));
  CHECK(q.grad()[0][0][0][0].item<double>() == Approx(0).margin(1e-12));
  CHECK(k.grad()[0][0][0][0].item<double>() == Approx(0.75 * ln3).epsilon(1e-12));
  CHECK(k.grad()[0][1][0][0].item<double>() == Approx(-0.75 * ln3).epsilon(1e-12));
}

TEST_CASE("causal_attention: float64 equals the reference", "[csrc_kernels][attention]") {
  check_against_reference(at::kDouble, 1e-12);
}

TEST_CASE("causal_attention: float32 equals the float64 reference", "[csrc_kernels][attention]") {
  check_against_reference(at::kFloat, 1e-5);
}

TEST_CASE("causal_attention: bfloat16 equals the float64 reference", "[csrc_kernels][attention]") {
  check_against_reference(at::kBFloat16, 2e-2);
}

TEST_CASE("causal_attention: equals LibTorch's attention", "[csrc_kernels][attention]") {
  for (const auto& size : kSizes) {
    CAPTURE(size.seq, size.head_dim);
    const auto inputs = make_inputs(size, at::kFloat);
    CHECK(distance(run_own(inputs, HeadLayout::kKvMajor), run_library(inputs)) < 1e-5);
    const auto halves = make_inputs(size, at::kBFloat16);
    CHECK(distance(run_own(halves, HeadLayout::kKvMajor), run_library(halves)) < 2e-2);
  }
}

TEST_CASE("causal_attention: gradients equal central differences", "[csrc_kernels][attention]") {
  for (const auto layout : kLayouts) {
    CAPTURE(static_cast<int>(layout));
    const auto inputs = make_inputs({1, 5, 4, 2, 3}, at::kDouble);
    const auto own = run_own(inputs, layout);
    const auto loss = [&] {
      return (causal_attention(inputs.q, inputs.k, inputs.v, layout) * inputs.grad_y)
          .sum()
          .item<double>();
    };
    CHECK(max_difference(own.grad_q, numeric_gradient(loss, inputs.q)) < 1e-8);
    CHECK(max_difference(own.grad_k, numeric_gradient(loss, inputs.k)) < 1e-8);
    CHECK(max_difference(own.grad_v, numeric_gradient(loss, inputs.v)) < 1e-8);
  }
}

TEST_CASE("causal_attention: large and growing scores stay exact", "[csrc_kernels][attention]") {
  // Later keys win, so that every chunk of keys raises the largest score; most probabilities
  // vanish. Scores reach 1000: rounding them to float32 alone moves a probability by 5e-5.
  for (const auto& [type, tolerance] :
       {std::pair(at::kDouble, 1e-11), std::pair(at::kFloat, 1e-4)}) {
    const auto inputs = make_inputs({1, 600, 2, 1, 24}, type);
    inputs.k.mul_(at::arange(600, type).view({1, 600, 1, 1}) / 20);
    inputs.q.mul_(4);
    const auto reference = run_reference(inputs, HeadLayout::kKvMajor);
    CHECK(distance(run_own(inputs, HeadLayout::kKvMajor), reference) < tolerance);
  }
}

TEST_CASE("causal_attention: a query does not see later keys", "[csrc_kernels][attention]") {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    auto inputs = make_inputs({1, 130, 2, 1, 24}, type);
    const auto before = causal_attention(inputs.q, inputs.k, inputs.v, HeadLayout::kKvMajor);
    inputs.k.narrow(1, 70, 60).fill_(1e4);
    inputs.v.narrow(1, 70, 60).fill_(1e30);
    const auto after = causal_attention(inputs.q, inputs.k, inputs.v, HeadLayout::kKvMajor);
    CHECK(at::equal(before.narrow(1, 0, 70), after.narrow(1, 0, 70)));
    CHECK_FALSE(at::equal(before.narrow(1, 70, 60), after.narrow(1, 70, 60)));
  }
}

TEST_CASE("causal_attention: strided slices give what dense copies give",
          "[csrc_kernels][attention]") {
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    RandomTensors random(3);
    // One projection for q, k and v; the column before it puts rows at odd addresses.
    const auto fused = random.normal({2, 70, 1 + 8 * 24}, type);
    const auto grad_y = random.normal({2, 4, 70, 24}, type).transpose(1, 2);
    const auto gradient = [&](bool dense) {
      const auto leaf = leaf_copy(fused);
      const auto heads = leaf.narrow(2, 1, 8 * 24).view({2, 70, 8, 24});
      const auto part = [&](int64_t begin, int64_t n) {
        const auto slice = heads.narrow(2, begin, n);
        return dense ? slice.contiguous() : slice;
      };
      const auto y = causal_attention(part(0, 4), part(4, 2), part(6, 2), HeadLayout::kKvMajor);
      y.backward(dense ? grad_y.contiguous() : grad_y);
      return leaf.grad();
    };
    CHECK(at::equal(gradient(false), gradient(true)));
  }
}

TEST_CASE("causal_attention: one and two threads give the same bits", "[csrc_kernels][attention]") {
  const int n_threads = at::get_num_threads();
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const auto layout : kLayouts) {
      const auto inputs = make_inputs({3, 200, 6, 3, 40}, type);
      at::set_num_threads(1);
      const auto one = run_own(inputs, layout);
      at::set_num_threads(2);
      // Often enough that on a busy machine, too, both threads work at once.
      for (int i = 0; i < 20; ++i) CHECK(same_bits(one, run_own(inputs, layout)));
      at::set_num_threads(n_threads);
    }
  }
}

TEST_CASE("causal_attention: does not read memory that it has not written",
          "[csrc_kernels][attention]") {
  auto& context = at::globalContext();
  const bool was_deterministic = context.deterministicAlgorithms();
  const bool was_filled = context.deterministicFillUninitializedMemory();
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    for (const auto& size : kSizes) {
      CAPTURE(size.seq, size.head_dim);
      const auto inputs = make_inputs(size, type);
      const auto plain = run_own(inputs, HeadLayout::kKvMajor);
      // Fresh memory, scratch too, then is NaN throughout.
      context.setDeterministicFillUninitializedMemory(true);
      context.setDeterministicAlgorithms(true, false);
      const auto poisoned = run_own(inputs, HeadLayout::kKvMajor);
      context.setDeterministicAlgorithms(was_deterministic, false);
      context.setDeterministicFillUninitializedMemory(was_filled);
      CHECK(same_bits(plain, poisoned));
    }
  }
}

TEST_CASE("causal_attention: refuses tensors that do not fit", "[csrc_kernels][attention]") {
  const auto refuses = [](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    CHECK_THROWS_WITH(causal_attention(q, k, v, HeadLayout::kKvMajor),
                      Catch::Matchers::Contains("causal_attention: expected"));
  };
  const auto inputs = make_inputs({2, 5, 4, 2, 8}, at::kFloat);
  const auto& [q, k, v, grad_y] = inputs;
  refuses(q[0], k[0], v[0]);
  refuses(q, k, v.narrow(1, 0, 4));
  refuses(q.narrow(1, 0, 4), k, v);
  refuses(q.narrow(2, 0, 3), k, v);
  refuses(q.narrow(3, 0, 4), k, v);
  refuses(q, k, v.to(at::kBFloat16));
  refuses(q.to(at::kHalf), k.to(at::kHalf), v.to(at::kHalf));
  refuses(q.transpose(1, 3), k.transpose(1, 3), v.transpose(1, 3));
  refuses(q.narrow(1, 0, 0), k.narrow(1, 0, 0), v.narrow(1, 0, 0));
}

TEST_CASE("continued_attention: parts are rows of the whole, bit for bit from block to block",
          "[kernels][attention]") {
  for (const auto type : {at::kDouble, at::kFloat, at::kBFloat16}) {
    for (const auto layout : kLayouts) {
      const Size size{1, 300, 4, 2, 24};
      const auto inputs = make_inputs(size, type);
      const auto whole = causal_attention(inputs.q, inputs.k, inputs.v, layout)[0];
      const auto k = inputs.k[0].transpose(0, 1).contiguous();  // [n_kv_heads, seq, head_dim]
      const auto v = inputs.v[0].transpose(0, 1).contiguous();
      for (const auto& [first, n] : std::vector<std::pair<int64_t, int64_t>>{
               {0, 32}, {32, 224}, {256, 44}, {288, 1}, {37, 70}}) {
        INFO(type << ", " << n << " queries from " << first);
        const auto part = continued_attention(inputs.q[0].narrow(0, first, n),
                                              k.narrow(1, 0, first + n),
                                              v.narrow(1, 0, first + n),
                                              layout);
        const auto expected = whole.narrow(0, first, n);
        CHECK(at::equal(part, expected));
      }
    }
  }
  const auto x = at::arange(8, at::kFloat).view({2, 2, 2});
  CHECK_THROWS_AS(continued_attention(x, x.narrow(1, 0, 1), x.narrow(1, 0, 1), kLayouts[0]),
                  c10::Error);
}

}  // namespace dsmoe
