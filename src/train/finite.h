#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>

namespace dsmoe {

/// Index, in memory order, of the first NaN or Inf of a float32 tensor, if there is one. Runs on
/// the caller's thread only. Throws c10::Error for another type.
std::optional<int64_t> first_non_finite(const at::Tensor& tensor);

}  // namespace dsmoe
