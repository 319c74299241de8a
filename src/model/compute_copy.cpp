#include "model/compute_copy.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

namespace dsmoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Returns the copy; its gradient reaches the parameter.
struct CopyOfParameter : torch::autograd::Function<CopyOfParameter> {
  static at::Tensor forward(AutogradContext* ctx,
                            const at::Tensor& parameter,
                            const at::Tensor& copy) {
    ctx->saved_data["type"] = parameter.scalar_type();
    return copy.view_as(copy);
  }

  static variable_list backward(AutogradContext* ctx, variable_list grads) {
    return {grads[0].to(ctx->saved_data["type"].toScalarType()), at::Tensor()};
  }
};

}  // namespace

at::Tensor ComputeCopy::values(const std::vector<at::Tensor>& parameters, at::ScalarType type) {
  const at::NoGradGuard no_grad;
  if (parameters.size() == 1 && parameters[0].scalar_type() == type) return parameters[0].detach();
  std::vector<Source> sources;
  for (const auto& parameter : parameters) {
    sources.push_back({parameter.const_data_ptr(), parameter._version()});
  }
  const bool is_fresh = copy_.defined() && copy_.scalar_type() == type && sources == sources_;
  if (!is_fresh) {
    // A new tensor, never in place: a graph may still use the old one.
    std::vector<at::Tensor> cast;
    for (const auto& parameter : parameters) cast.push_back(parameter.detach().to(type));
    copy_ = cast.size() == 1 ? cast[0] : at::cat(cast, 0);
    sources_ = std::move(sources);
  }
  return copy_;
}

at::Tensor ComputeCopy::differentiable(const at::Tensor& parameter, at::ScalarType type) {
  if (parameter.scalar_type() == type) return parameter;
  if (!parameter.requires_grad() || !at::GradMode::is_enabled()) return values({parameter}, type);
  return CopyOfParameter::apply(parameter, values({parameter}, type));
}

}  // namespace dsmoe
