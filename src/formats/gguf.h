#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace dsmoe {

/// Number types of GGUF tensors that this program writes and reads; the numbers are the format's.
enum class GgufType : uint32_t { kF32 = 0, kF16 = 1, kBf16 = 30 };

/// Bytes of one element.
uint64_t gguf_type_size(GgufType type);

/// A metadata value of the kinds that models need.
using GgufValue = std::variant<bool,
                               uint32_t,
                               float,
                               std::string,
                               std::vector<int32_t>,
                               std::vector<float>,
                               std::vector<std::string>>;
using GgufMetadata = std::vector<std::pair<std::string, GgufValue>>;

/// One tensor; shape as elsewhere, outermost dimension first (the file lists them in reverse).
struct GgufTensor {
  std::string name;
  GgufType type = GgufType::kF32;
  std::vector<int64_t> shape;

  uint64_t size_bytes() const;
};

/// Data of each tensor starts at a multiple of this, counted from the start of the data section.
constexpr uint64_t kGgufAlignment = 32;

}  // namespace dsmoe
