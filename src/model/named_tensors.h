#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>

#include <string>
#include <utility>
#include <vector>

namespace dsmoe {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

/// Every parameter of a module, in its order; shares memory with the module.
NamedTensors named_parameters(const torch::nn::Module& module);

/// Every parameter and buffer of a module, in its order; shares memory with the module.
NamedTensors named_tensors(const torch::nn::Module& module);

/// Converts between a tensor type and its safetensors name. Throws Error for a type without a name.
std::string dtype_name(at::ScalarType dtype);
at::ScalarType dtype_from_name(const std::string& name);

}  // namespace dsmoe
