#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/ones_like.h>

#include <catch2/catch.hpp>
#include <functional>
#include <vector>

#include "csrc_kernels/random_tensors.h"
#include "support/test_device.h"

/// Whole ops on the device under test (support/test_device.h) against the CPU's in float64.
namespace dsmoe::device_ops {

/// What an input becomes when the op is asked for in a type.
enum class Kind {
  kStored,  ///< that type
  kWide,    ///< float32, or float64 for float64
  kFixed    ///< itself, without gradient
};

struct Input {
  at::Tensor value;  // float64, or any type for kFixed
  Kind kind = Kind::kStored;
};

using Tensors = std::vector<at::Tensor>;
/// Inputs in the type to compute in, and that type; the outputs that count.
using Op = std::function<Tensors(const Tensors& inputs, at::ScalarType type)>;

inline double tolerance_of(at::ScalarType type) {
  return type == at::kDouble ? 1e-12 : type == at::kFloat ? 2e-5 : 2e-2;
}

inline at::ScalarType type_of(const Input& input, at::ScalarType type) {
  if (input.kind == Kind::kFixed) return input.value.scalar_type();
  return input.kind == Kind::kWide && type == at::kBFloat16 ? at::kFloat : type;
}

/// Outputs, then gradients of the inputs that have one, in float64 on the CPU. The output gradients
/// are fixed numbers.
inline Tensors results(const Op& op,
                       const std::vector<Input>& inputs,
                       at::ScalarType rounding,
                       at::ScalarType type,
                       at::Device device) {
  Tensors leaves;
  for (const auto& input : inputs) {
    if (!input.value.defined()) {
      leaves.emplace_back();
      continue;
    }
    // Rounded first, so that both sides start from the same numbers.
    auto leaf =
        input.value.detach().to(type_of(input, rounding)).to(type_of(input, type)).to(device);
    leaves.push_back(input.kind == Kind::kFixed ? leaf : leaf.requires_grad_(true));
  }
  const auto outputs = op(leaves, type);
  Tensors all;
  at::Tensor total;
  for (const auto& output : outputs) {
    all.push_back(output.detach().cpu().to(at::kDouble));
    if (!output.requires_grad()) continue;
    RandomTensors random(77);
    const auto seed = random.normal(output.sizes()).to(output.scalar_type()).to(device);
    const auto part = (output * seed).sum();
    total = total.defined() ? total + part.to(total.scalar_type()) : part;
  }
  if (total.defined()) total.backward();
  for (const auto& leaf : leaves) {
    if (leaf.defined() && leaf.requires_grad()) {
      all.push_back(leaf.grad().defined() ? leaf.grad().cpu().to(at::kDouble) : at::Tensor());
    }
  }
  return all;
}

/// Checks outputs and gradients in `types` against the CPU's in float64.
inline void check(const Op& op,
                  const std::vector<Input>& inputs,
                  const std::vector<at::ScalarType>& types = {at::kDouble,
                                                              at::kFloat,
                                                              at::kBFloat16}) {
  for (const auto type : types) {
    const auto expected = results(op, inputs, type, at::kDouble, at::kCPU);
    const auto got = results(op, inputs, type, type, test_device());
    REQUIRE(got.size() == expected.size());
    for (size_t i = 0; i < got.size(); ++i) {
      CAPTURE(type, i);
      REQUIRE(got[i].defined() == expected[i].defined());
      if (!got[i].defined() || expected[i].numel() == 0) continue;
      const double scale = 1.0 + expected[i].abs().max().item<double>();
      CHECK(max_difference(got[i], expected[i]) <= tolerance_of(type) * scale);
    }
  }
}

}  // namespace dsmoe::device_ops
