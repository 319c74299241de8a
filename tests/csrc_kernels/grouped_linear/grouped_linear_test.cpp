#include "csrc_kernels/grouped_linear/grouped_linear.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/tensor.h>
#include <c10/util/Exception.h>

#include <catch2/catch.hpp>
#include <cmath>
#include <string>
#include <vector>

#include "csrc_kernels/random_tensors.h"

namespace dsmoe {
namespace {

struct GroupedCase {
  std::string name;
  std::vector<int64_t> offsets;
  int64_t d_in;
  int64_t d_out;
};

const std::vector<GroupedCase> kGroupedCases = {
    {"several experts", {0, 4, 9, 12}, 8, 4},
    {"odd widths", {0, 3, 4, 11, 18}, 7, 5},
    {"empty first, middle and last expert", {0, 0, 5, 5, 6, 6}, 3, 9},
    {"one row", {0, 0, 1, 1}, 5, 3},
    {"one expert", {0, 6}, 5, 3},
    {"one expert, one row, width one", {0, 1}, 1, 1},
    {"no row at all", {0, 0, 0}, 4, 3},
    {"more rows than a block", {0, 67, 70, 201}, 33, 17},
};

at::Tensor make_weight(RandomTensors& random, const GroupedCase& shape, ExpertAxis axis) {
  const auto n_experts = static_cast<int64_t>(shape.offsets.size()) - 1;
  return axis == ExpertAxis::kRows ? random.leaf({n_experts * shape.d_out, shape.d_in})
                                   : random.leaf({shape.d_out, n_experts * shape.d_in});
}

// Neither the kernel nor its reference: one dot product per entry.
at::Tensor loop(const at::Tensor& x,
                const at::Tensor& weight,
                const GroupedCase& shape,
                ExpertAxis axis) {
  auto out = at::full({x.size(0), shape.d_out}, 0.0, x.options());
  const auto a = x.accessor<double, 2>();
  const auto w = weight.accessor<double, 2>();
  auto y = out.accessor<double, 2>();
  for (size_t e = 0; e + 1 < shape.offsets.size(); ++e) {
    const auto expert = static_cast<int64_t>(e);
    for (int64_t row = shape.offsets[e]; row < shape.offsets[e + 1]; ++row) {
      for (int64_t o = 0; o < shape.d_out; ++o) {
        for (int64_t i = 0; i < shape.d_in; ++i) {
          y[row][o] += a[row][i] * (axis == ExpertAxis::kRows ? w[expert * shape.d_out + o][i]
                                                              : w[o][expert * shape.d_in + i]);
        }
      }
    }
  }
  return out;
}

const ExpertAxis kAxes[] = {ExpertAxis::kRows, ExpertAxis::kColumns};

}  // namespace

TEST_CASE("grouped_linear: equals a loop of dot products and its reference", "[kernels][moe]") {
  for (const auto& shape : kGroupedCases) {
    for (const auto axis : kAxes) {
      INFO(shape.name << ", " << (axis == ExpertAxis::kRows ? "rows" : "columns"));
      RandomTensors random(11);
      const auto x = random.normal({shape.offsets.back(), shape.d_in});
      const auto weight = make_weight(random, shape, axis).detach();
      const auto expected = loop(x, weight, shape, axis);
      CHECK(max_difference(grouped_linear(x, weight, shape.offsets, axis), expected) < 1e-12);
      CHECK(max_difference(grouped_linear_ref(x, weight, shape.offsets, axis), expected) < 1e-12);
    }
  }
}

TEST_CASE("grouped_linear: both gradients equal the reference's", "[kernels][moe]") {
  for (const auto& shape : kGroupedCases) {
    for (const auto axis : kAxes) {
      INFO(shape.name << ", " << (axis == ExpertAxis::kRows ? "rows" : "columns"));
      RandomTensors random(12);
      const auto x = random.leaf({shape.offsets.back(), shape.d_in});
      const auto weight = make_weight(random, shape, axis);
      const auto x_ref = leaf_copy(x);
      const auto weight_ref = leaf_copy(weight);
      const auto upstream = random.normal({shape.offsets.back(), shape.d_out});
      grouped_linear(x, weight, shape.offsets, axis).backward(upstream);
      grouped_linear_ref(x_ref, weight_ref, shape.offsets, axis).backward(upstream);
      CHECK(max_difference(x.grad(), x_ref.grad()) < 1e-12);
      CHECK(max_difference(weight.grad(), weight_ref.grad()) < 1e-12);
    }
  }
}

TEST_CASE("grouped_linear: gradients equal finite differences", "[kernels][moe]") {
  const GroupedCase shape{"tiny", {0, 2, 2, 3}, 3, 2};
  for (const auto axis : kAxes) {
    RandomTensors random(13);
    const auto x = random.leaf({3, 3});
    const auto weight = make_weight(random, shape, axis);
    const auto upstream = random.normal({3, 2});
    const auto loss = [&] {
      return (grouped_linear(x.detach(), weight.detach(), shape.offsets, axis) * upstream)
          .sum()
          .item<double>();
    };
    grouped_linear(x, weight, shape.offsets, axis).backward(upstream);
    CHECK(max_difference(x.grad(), numeric_gradient(loss, x.detach())) < 1e-8);
    CHECK(max_difference(weight.grad(), numeric_gradient(loss, weight.detach())) < 1e-8);
  }
}

TEST_CASE("grouped_linear: an expert without rows gets a gradient of exact zeros",
          "[kernels][moe]") {
  for (const auto axis : kAxes) {
    RandomTensors random(14);
    const GroupedCase shape{"", {0, 3, 3, 5}, 4, 4};
    const auto x = random.leaf({5, 4});
    const auto weight = make_weight(random, shape, axis);
    const auto upstream = random.normal({5, 4});
    {
      // Freed memory full of NaN: a kernel that starts from empty would show it.
      std::vector<at::Tensor> poison;
      for (int i = 0; i < 64; ++i) poison.push_back(at::full({12, 4}, NAN, x.options()));
    }
    grouped_linear(x, weight, shape.offsets, axis).backward(upstream);
    const int64_t dim = axis == ExpertAxis::kRows ? 0 : 1;
    const auto blocks = weight.grad().chunk(3, dim);
    CHECK(blocks[0].abs().min().item<double>() > 0);
    CHECK(blocks[1].abs().max().item<double>() == 0);
    CHECK(blocks[2].abs().min().item<double>() > 0);
  }
}

TEST_CASE("grouped_linear: reads non-contiguous operands", "[kernels][moe]") {
  RandomTensors random(15);
  const GroupedCase shape{"", {0, 2, 5}, 4, 3};
  for (const auto axis : kAxes) {
    const auto x = random.normal({4, 5}).t();
    const auto weight = make_weight(random, shape, axis).detach().t().contiguous().t();
    CHECK(max_difference(grouped_linear(x, weight, shape.offsets, axis),
                         loop(x, weight, shape, axis)) < 1e-12);
  }
}

TEST_CASE("grouped_linear: float32 and bfloat16 stay near float64", "[kernels][moe]") {
  RandomTensors random(16);
  const GroupedCase shape{"", {0, 5, 5, 12}, 24, 10};
  for (const auto axis : kAxes) {
    const auto x = random.normal({12, 24}) * 0.2;
    const auto weight = make_weight(random, shape, axis).detach() * 0.2;
    const auto exact = loop(x, weight, shape, axis);
    for (const auto& [dtype, tolerance] :
         {std::pair{at::kFloat, 1e-5}, std::pair{at::kBFloat16, 2e-2}}) {
      const auto y = grouped_linear(x.to(dtype), weight.to(dtype), shape.offsets, axis);
      CHECK(y.scalar_type() == dtype);
      CHECK(max_difference(y.to(at::kDouble), exact) < tolerance);
    }
  }
}

TEST_CASE("grouped_linear: in bfloat16 no expert's rows reach another's results",
          "[kernels][moe]") {
  RandomTensors random(18);
  // Counts around the sizes that they are rounded to; expert 3 of rows 55 to 80 is spoilt.
  const GroupedCase shape{"", {0, 16, 33, 55, 80, 80, 81, 400}, 24, 10};
  for (const auto axis : kAxes) {
    struct Result {
      at::Tensor y;
      at::Tensor grad_x;
      std::vector<at::Tensor> grad_blocks;
    };
    const auto inputs = random.normal({400, 24}) * 0.2;
    const auto upstream = random.normal({400, 10}) * 0.2;
    const auto weights = make_weight(random, shape, axis).detach() * 0.2;
    const auto run = [&](at::ScalarType dtype, bool spoilt, const auto& function) {
      auto x = inputs.detach().to(dtype).clone();
      auto grad_y = upstream.to(dtype);
      if (spoilt) x.narrow(0, 55, 25).fill_(NAN);
      if (spoilt) grad_y.narrow(0, 55, 25).fill_(NAN);
      x.requires_grad_();
      const auto weight = leaf_copy(weights.to(dtype));
      const auto y = function(x, weight, shape.offsets, axis);
      y.backward(grad_y);
      return Result{
          y.detach(), x.grad(), weight.grad().chunk(7, axis == ExpertAxis::kRows ? 0 : 1)};
    };
    const auto exact = run(at::kDouble, false, grouped_linear_ref);
    const auto spoilt = run(at::kBFloat16, true, grouped_linear);
    const auto near = [](const at::Tensor& a, const at::Tensor& b) {
      return max_difference(a.to(at::kDouble), b) <
             2e-2 * std::max(1.0, b.abs().max().item<double>());
    };
    for (const auto& [first, count] : {std::pair{0, 55}, std::pair{80, 320}}) {
      CHECK(near(spoilt.y.narrow(0, first, count), exact.y.narrow(0, first, count)));
      CHECK(near(spoilt.grad_x.narrow(0, first, count), exact.grad_x.narrow(0, first, count)));
    }
    for (const size_t expert : {0, 1, 2, 5, 6}) {
      INFO(expert);
      CHECK(near(spoilt.grad_blocks[expert], exact.grad_blocks[expert]));
    }
    CHECK(spoilt.grad_blocks[4].abs().max().item<double>() == 0);
  }
}

TEST_CASE("grouped_linear: wrong shapes, types and offsets throw", "[kernels][moe]") {
  RandomTensors random(17);
  const auto x = random.normal({5, 4});
  const auto rows = random.normal({6, 4});     // two experts of width 3
  const auto columns = random.normal({3, 8});  // two experts of input width 4
  const std::vector<int64_t> offsets{0, 2, 5};
  REQUIRE_NOTHROW(grouped_linear(x, rows, offsets, ExpertAxis::kRows));
  REQUIRE_NOTHROW(grouped_linear(x, columns, offsets, ExpertAxis::kColumns));

  const auto both_throw = [&](const at::Tensor& a, const std::vector<int64_t>& ends) {
    CHECK_THROWS_AS(grouped_linear(a, rows, ends, ExpertAxis::kRows), c10::Error);
    CHECK_THROWS_AS(grouped_linear(a, columns, ends, ExpertAxis::kColumns), c10::Error);
  };
  both_throw(random.normal({5, 3}), offsets);     // wrong input width
  both_throw(random.normal({1, 5, 4}), offsets);  // not a matrix
  both_throw(x.to(at::kFloat), offsets);          // types differ
  both_throw(x, {});                              // no offsets
  both_throw(x, {0});                             // no expert
  both_throw(x, {1, 2, 5});                       // does not start at 0
  both_throw(x, {0, 2, 4});                       // does not end at n_rows
  both_throw(x, {0, 2, 6});                       // past the end
  both_throw(x, {0, 6, 5});                       // not ascending
  both_throw(x, {0, -1, 5});                      // negative
  CHECK_THROWS_AS(grouped_linear(x, columns, offsets, ExpertAxis::kRows), c10::Error);
  CHECK_THROWS_AS(grouped_linear(x, rows, offsets, ExpertAxis::kColumns), c10::Error);
  // Seven rows or columns do not divide into two experts.
  CHECK_THROWS_AS(grouped_linear(x, random.normal({7, 4}), offsets, ExpertAxis::kRows), c10::Error);
}

TEST_CASE("grouped_linear: ends on the device give what offsets give", "[csrc_kernels][moe]") {
  RandomTensors random(31);
  const std::vector<int64_t> offsets = {0, 3, 3, 9};  // an expert without rows
  const auto ends = at::tensor({3, 3, 9}, at::kInt);
  for (const auto axis : {ExpertAxis::kRows, ExpertAxis::kColumns}) {
    const bool by_rows = axis == ExpertAxis::kRows;
    const auto weight =
        by_rows ? random.normal({3 * 8, 16}, at::kFloat) : random.normal({8, 3 * 16}, at::kFloat);
    const auto x = random.normal({11, 16}, at::kFloat);  // two rows past the last
    const auto seed = random.normal({9, 8}, at::kFloat);
    const auto run = [&](const auto& product) {
      const auto rows = leaf_copy(x);
      const auto matrix = leaf_copy(weight);
      const auto y = product(rows, matrix).narrow(0, 0, 9);
      (y * seed).sum().backward();
      return std::array{y.detach(), rows.grad().narrow(0, 0, 9), matrix.grad()};
    };
    const auto got = run([&](const auto& rows, const auto& matrix) {
      return grouped_linear_by_ends(rows, matrix, ends, axis);
    });
    const auto expected = run([&](const auto& rows, const auto& matrix) {
      return grouped_linear(rows.narrow(0, 0, 9).contiguous(), matrix, offsets, axis);
    });
    for (size_t i = 0; i < got.size(); ++i) CHECK(max_difference(got[i], expected[i]) < 1e-5);
  }
  CHECK(takes_ends(at::kBFloat16, 16, 8));
  CHECK_FALSE(takes_ends(at::kBFloat16, 16, 12));
  CHECK_FALSE(takes_ends(at::kDouble, 16, 8));
}

}  // namespace dsmoe
