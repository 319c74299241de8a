#include "model/compute_copy.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>

#include <catch2/catch.hpp>

#include "csrc_kernels/random_tensors.h"

namespace dsmoe {

TEST_CASE("ComputeCopy: casts once until the parameter changes", "[model]") {
  auto parameter = RandomTensors(1).normal({3, 4}, at::kFloat).requires_grad_(true);
  ComputeCopy copy;
  const auto first = copy.values({parameter}, at::kBFloat16);
  CHECK(at::equal(first, parameter.detach().to(at::kBFloat16)));
  CHECK(copy.values({parameter}, at::kBFloat16).data_ptr() == first.data_ptr());
  {
    const at::NoGradGuard no_grad;
    parameter.mul_(2.0);
  }
  const auto second = copy.values({parameter}, at::kBFloat16);
  CHECK(at::equal(second, parameter.detach().to(at::kBFloat16)));
  CHECK(at::equal(first * 2.0, second));  // the old copy is unchanged
}

TEST_CASE("ComputeCopy: stacks parameters and updates when one of them changes", "[model]") {
  auto a = RandomTensors(5).normal({2, 3}, at::kFloat);
  auto b = RandomTensors(6).normal({4, 3}, at::kFloat);
  ComputeCopy copy;
  const auto stacked = [&] { return copy.values({a, b}, at::kFloat); };
  CHECK(at::equal(stacked(), at::cat({a, b}, 0)));
  const void* first = stacked().data_ptr();
  CHECK(stacked().data_ptr() == first);
  b.mul_(3.0);
  CHECK(at::equal(stacked(), at::cat({a, b}, 0)));
}

TEST_CASE("ComputeCopy: the gradient reaches the parameter in float32", "[model]") {
  auto parameter = RandomTensors(2).normal({3, 4}, at::kFloat).requires_grad_(true);
  ComputeCopy copy;
  const auto upstream = RandomTensors(3).normal({3, 4}, at::kBFloat16);
  (copy.differentiable(parameter, at::kBFloat16) * upstream).sum().backward();
  CHECK(parameter.grad().scalar_type() == at::kFloat);
  CHECK(at::equal(parameter.grad(), upstream.to(at::kFloat)));
  const at::NoGradGuard no_grad;
  CHECK_FALSE(copy.differentiable(parameter, at::kBFloat16).requires_grad());
}

TEST_CASE("ComputeCopy: a parameter that has the type is returned itself", "[model]") {
  auto parameter = RandomTensors(4).normal({3}, at::kFloat).requires_grad_(true);
  ComputeCopy copy;
  CHECK(copy.values({parameter}, at::kFloat).data_ptr() == parameter.data_ptr());
  CHECK(copy.differentiable(parameter, at::kFloat).is_same(parameter));
}

}  // namespace dsmoe
