#include "model/named_tensors.h"

#include <array>

#include "common/error.h"

namespace dsmoe {
namespace {

constexpr std::array<std::pair<const char*, at::ScalarType>, 7> kNames{{{"F64", at::kDouble},
                                                                        {"F32", at::kFloat},
                                                                        {"F16", at::kHalf},
                                                                        {"BF16", at::kBFloat16},
                                                                        {"I64", at::kLong},
                                                                        {"U8", at::kByte},
                                                                        {"BOOL", at::kBool}}};

}  // namespace

NamedTensors named_parameters(const torch::nn::Module& module) {
  NamedTensors tensors;
  for (const auto& item : module.named_parameters()) tensors.emplace_back(item.key(), item.value());
  return tensors;
}

NamedTensors named_tensors(const torch::nn::Module& module) {
  NamedTensors tensors = named_parameters(module);
  for (const auto& item : module.named_buffers()) tensors.emplace_back(item.key(), item.value());
  return tensors;
}

std::string dtype_name(at::ScalarType dtype) {
  for (const auto& [name, type] : kNames) {
    if (type == dtype) return name;
  }
  throw Error(std::string("safetensors: expected a type that the format has, got ") +
              c10::toString(dtype));
}

at::ScalarType dtype_from_name(const std::string& name) {
  for (const auto& [known, type] : kNames) {
    if (known == name) return type;
  }
  throw Error("safetensors: expected a type that torch has, got '" + name + "'");
}

}  // namespace dsmoe
