#include "model/io/tensor_link.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <fmt/format.h>

#include <set>

#include "common/error.h"
#include "model/named_tensors.h"

namespace dsmoe {

at::Tensor gather(const TensorLink& link, at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  auto parts = link.parts;
  if (link.first_factor != 1.0) parts[0] = parts[0] * link.first_factor;
  const auto whole = parts.size() == 1 ? parts[0] : at::cat(parts, link.axis);
  return whole.to(link.stays_float32 ? at::kFloat : dtype).contiguous();
}

void scatter(const TensorLink& link, const at::Tensor& value) {
  const at::NoGradGuard no_grad;
  auto expected = link.parts[0].sizes().vec();
  for (size_t i = 1; i < link.parts.size(); ++i) {
    expected[static_cast<size_t>(link.axis)] += link.parts[i].size(link.axis);
  }
  if (!value.sizes().equals(expected)) {
    throw Error(fmt::format("'{}': expected shape [{}], got [{}]",
                            link.name,
                            fmt::join(expected, ", "),
                            fmt::join(value.sizes(), ", ")));
  }
  if (link.is_constant) {
    if (!at::equal(gather(link, value.scalar_type()), value)) {
      throw Error(fmt::format("'{}': expected the constant values of the target", link.name));
    }
    return;
  }
  int64_t begin = 0;
  for (const auto& part : link.parts) {
    const int64_t length = link.parts.size() == 1 ? 0 : part.size(link.axis);
    part.copy_(link.parts.size() == 1 ? value : value.narrow(link.axis, begin, length));
    begin += length;
  }
  const bool repeats =
      link.parts.size() == 2 && link.parts[0].const_data_ptr() == link.parts[1].const_data_ptr();
  if (repeats && !at::equal(gather(link, value.scalar_type()), value)) {
    throw Error(fmt::format("'{}': expected both halves to be equal", link.name));
  }
}

void check_names(const std::vector<TensorLink>& links,
                 const std::vector<std::string>& names,
                 const std::string& path) {
  std::set<std::string> left(names.begin(), names.end());
  for (const auto& link : links) {
    if (left.erase(link.name) == 0) throw Error(fmt::format("{}: expected '{}'", path, link.name));
  }
  if (left.empty()) return;
  throw Error(fmt::format("{}: '{}' is not a tensor of this model", path, *left.begin()));
}

void check_every_parameter_is_linked(const Transformer& model,
                                     const std::vector<TensorLink>& links) {
  std::set<const void*> linked;
  for (const auto& link : links) {
    for (const auto& part : link.parts) linked.insert(part.storage().data());
  }
  for (const auto& [name, tensor] : named_tensors(*model)) {
    if (linked.count(tensor.storage().data()) == 0) {
      throw Error(fmt::format("export: the target has no place for '{}'", name));
    }
  }
}

Parameters::Parameters(const Transformer& model) {
  for (const auto& [name, tensor] : named_parameters(*model)) {
    parameters_.emplace_back(name, tensor.detach());
  }
}

at::Tensor Parameters::at(const std::string& name) const {
  for (const auto& [known, tensor] : parameters_) {
    if (known == name) return tensor;
  }
  throw Error(fmt::format("export: expected a parameter '{}', the model has none", name));
}

at::Tensor Parameters::of_block(int64_t layer, const std::string& name) const {
  return at(fmt::format("blocks_{}.{}", layer, name));
}

at::Tensor expert_rows(const at::Tensor& wide, int64_t n_experts) {
  return wide.view({n_experts, wide.size(0) / n_experts, wide.size(1)});
}

at::Tensor expert_columns(const at::Tensor& wide, int64_t n_experts) {
  return wide.view({wide.size(0), n_experts, wide.size(1) / n_experts}).permute({1, 0, 2});
}

}  // namespace dsmoe
