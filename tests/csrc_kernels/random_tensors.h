#pragma once

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/randn.h>

#include <cstdint>
#include <functional>
#include <limits>

namespace dsmoe {

/// Normal numbers from a seed of one's own, so that a test does not depend on the tests before it.
class RandomTensors {
 public:
  explicit RandomTensors(uint64_t seed) : generator_(at::detail::createCPUGenerator(seed)) {}

  at::Tensor normal(at::IntArrayRef shape, at::ScalarType dtype = at::kDouble) {
    return at::randn(shape, generator_, at::TensorOptions().dtype(at::kDouble)).to(dtype);
  }
  /// A leaf that collects a gradient.
  at::Tensor leaf(at::IntArrayRef shape, double scale = 1.0) {
    return (normal(shape) * scale).requires_grad_(true);
  }

 private:
  at::Generator generator_;
};

/// A copy that collects its own gradient.
inline at::Tensor leaf_copy(const at::Tensor& x) { return x.detach().clone().requires_grad_(true); }

/// Largest absolute difference; infinite if the shapes differ, NaN if an entry is NaN.
inline double max_difference(const at::Tensor& a, const at::Tensor& b) {
  if (!a.defined() || !b.defined() || a.sizes() != b.sizes()) {
    return std::numeric_limits<double>::infinity();
  }
  return a.numel() == 0 ? 0.0 : (a.detach() - b.detach()).abs().max().item<double>();
}

/// Derivative of a scalar function by central differences; x is a contiguous float64 tensor that
/// the function reads.
inline at::Tensor numeric_gradient(const std::function<double()>& function,
                                   const at::Tensor& x,
                                   double step = 1e-5) {
  auto gradient = x.detach().clone();
  auto* values = x.data_ptr<double>();
  auto* slopes = gradient.data_ptr<double>();
  const auto set = [&](int64_t i, double value) {
    values[i] = value;
    x.unsafeGetTensorImpl()->bump_version();  // copies that follow the version see it
  };
  for (int64_t i = 0; i < x.numel(); ++i) {
    const double saved = values[i];
    set(i, saved + step);
    const double above = function();
    set(i, saved - step);
    const double below = function();
    set(i, saved);
    slopes[i] = (above - below) / (2 * step);
  }
  return gradient;
}

}  // namespace dsmoe
