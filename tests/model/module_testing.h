#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/GradMode.h>
#include <c10/util/Exception.h>
#include <torch/nn/module.h>

#include <cstdint>
#include <string>

#include "csrc_kernels/random_tensors.h"

namespace dsmoe {

/// Fills every parameter with N(0, std), biases and norms included, so that each affects the result.
inline void randomise(torch::nn::Module& module, uint64_t seed, double std) {
  RandomTensors random(seed);
  at::NoGradGuard no_grad;
  for (auto& item : module.named_parameters()) {
    item.value().copy_(random.normal(item.value().sizes()) * std);
  }
}

inline int64_t count_parameters(const torch::nn::Module& module) {
  int64_t total = 0;
  for (const auto& parameter : module.parameters()) total += parameter.numel();
  return total;
}

/// The parameter of that full name, without history. Throws c10::Error if there is none.
inline at::Tensor parameter(const torch::nn::Module& module, const std::string& name) {
  const auto parameters = module.named_parameters();
  const auto* found = parameters.find(name);
  TORCH_CHECK(found != nullptr, "no parameter ", name);
  return found->detach();
}

/// Sets the gradients of all parameters back to undefined.
inline void clear_gradients(torch::nn::Module& module) {
  for (auto& item : module.parameters()) item.mutable_grad() = at::Tensor();
}

/// Largest difference between the gradients of two modules of one form; an absent gradient is zero.
inline double max_gradient_difference(const torch::nn::Module& a, const torch::nn::Module& b) {
  double largest = 0;
  const auto others = b.named_parameters();
  for (const auto& item : a.named_parameters()) {
    const auto x = item.value().grad();
    const auto y = others[item.key()].grad();
    if (!x.defined() && !y.defined()) continue;
    const double difference = x.defined() && y.defined()
                                  ? max_difference(x, y)
                                  : (x.defined() ? x : y).abs().max().item<double>();
    if (!(difference <= largest)) largest = difference;  // also keeps NaN
  }
  return largest;
}

}  // namespace dsmoe
