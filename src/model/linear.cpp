#include "model/linear.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/linear.h>

namespace dsmoe {

at::Tensor at_least_float32(const at::Tensor& x) {
  return x.scalar_type() == at::kDouble ? x : x.to(at::kFloat);
}

LinearImpl::LinearImpl(int64_t d_in, int64_t d_out, bool with_bias) {
  weight = register_parameter("weight", at::empty({d_out, d_in}, at::kFloat));
  if (with_bias) bias = register_parameter("bias", at::empty({d_out}, at::kFloat));
}

at::Tensor LinearImpl::forward(const at::Tensor& x) {
  const auto b =
      bias.defined() ? c10::optional<at::Tensor>(bias.to(x.scalar_type())) : c10::nullopt;
  return at::linear(x, weight_as(x.scalar_type()), b);
}

}  // namespace dsmoe
