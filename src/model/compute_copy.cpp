#include "model/compute_copy.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/custom_function.h>

namespace dsmoe {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

// Hands out the copy; its gradient goes to the parameter.
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

at::Tensor ComputeCopy::values(const at::Tensor& parameter, at::ScalarType type) {
  const at::NoGradGuard no_grad;
  if (parameter.scalar_type() == type) return parameter.detach();
  const bool is_fresh = copy_.defined() && copy_.scalar_type() == type &&
                        source_ == parameter.const_data_ptr() && version_ == parameter._version() &&
                        copy_.sizes() == parameter.sizes();
  if (!is_fresh) {
    // A new tensor, never in place: a graph may still hold the old one.
    copy_ = parameter.detach().to(type);
    source_ = parameter.const_data_ptr();
    version_ = parameter._version();
  }
  return copy_;
}

at::Tensor ComputeCopy::differentiable(const at::Tensor& parameter, at::ScalarType type) {
  if (parameter.scalar_type() == type) return parameter;
  if (!parameter.requires_grad() || !at::GradMode::is_enabled()) return values(parameter, type);
  return CopyOfParameter::apply(parameter, values(parameter, type));
}

}  // namespace dsmoe
