#include "train/finite.h"

#include <algorithm>
#include <bit>
#include <cmath>

namespace dsmoe {

std::optional<int64_t> first_non_finite(const at::Tensor& tensor) {
  TORCH_CHECK(tensor.scalar_type() == at::kFloat,
              "first_non_finite: expected float32, got ",
              tensor.scalar_type());
  constexpr int64_t kBlock = 4096;
  constexpr uint32_t kExponent = 0x7f800000;  // all ones: NaN or Inf
  const auto contiguous = tensor.detach().contiguous().cpu();
  const float* values = contiguous.const_data_ptr<float>();
  const int64_t n = contiguous.numel();
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, n);
    bool is_finite = true;
    for (int64_t i = begin; i < end; ++i) {
      is_finite &= (std::bit_cast<uint32_t>(values[i]) & kExponent) != kExponent;
    }
    if (is_finite) continue;
    for (int64_t i = begin; i < end; ++i) {
      if (!std::isfinite(values[i])) return i;
    }
  }
  return std::nullopt;
}

}  // namespace dsmoe
