#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

#include "csrc_kernels/common/bfloat16.h"

namespace dsmoe {

/// Autograd functions take an optional, not an undefined tensor.
using OptionalTensor = std::optional<at::Tensor>;
inline OptionalTensor optional(const at::Tensor& tensor) {
  return tensor.defined() ? OptionalTensor(tensor) : std::nullopt;
}
inline at::Tensor tensor_or_undefined(const OptionalTensor& tensor) {
  return tensor.value_or(at::Tensor());
}

/// Pointer to the first element for kernels without torch; null for an undefined tensor.
template <typename T>
T* pointer(const at::Tensor& tensor) {
  return tensor.defined() ? static_cast<T*>(tensor.data_ptr()) : nullptr;
}

/// Calls `function.template operator()<T, W>()`: T stored type of the tensor, W type of its weights
/// and sums. Throws c10::Error naming `op` for any other type.
template <typename Function>
void dispatch_float_types(const char* op, at::ScalarType type, Function&& function) {
  switch (type) {
    case at::kFloat:
      return function.template operator()<float, float>();
    case at::kBFloat16:
      return function.template operator()<Bfloat16, float>();
    case at::kDouble:
      return function.template operator()<double, double>();
    default:
      TORCH_CHECK(false, op, ": expected float32, bfloat16 or float64, got ", type);
  }
}

/// Calls `function.template operator()<T>()` for the row types of inference.
template <typename Function>
void dispatch_row_types(const char* op, at::ScalarType type, Function&& function) {
  switch (type) {
    case at::kFloat:
      return function.template operator()<float>();
    case at::kBFloat16:
      return function.template operator()<Bfloat16>();
    default:
      TORCH_CHECK(false, op, ": expected float32 or bfloat16, got ", type);
  }
}

}  // namespace dsmoe
