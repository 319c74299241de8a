#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace dsmoe {

/// A parameter in the type of the products. It is cast once after each change of the parameter, not
/// once per use: a training step casts a weight once, however many micro-batches it has.
class ComputeCopy {
 public:
  /// The values in `type`, without gradient; the parameter itself where that is its type. Not safe
  /// from two threads at once.
  at::Tensor values(const at::Tensor& parameter, at::ScalarType type);

  /// The same with a gradient path: what comes back is widened to the parameter's type.
  at::Tensor differentiable(const at::Tensor& parameter, at::ScalarType type);

 private:
  at::Tensor copy_;
  const void* source_ = nullptr;
  int64_t version_ = -1;
};

}  // namespace dsmoe
