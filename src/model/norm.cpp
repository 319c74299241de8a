#include "model/norm.h"

#include <ATen/ops/layer_norm.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/zeros.h>

#include "model/linear.h"

namespace dsmoe {

NormImpl::NormImpl(NormKind kind, int64_t d_model, double eps, bool with_bias)
    : kind_(kind), eps_(eps) {
  weight = register_parameter("weight", at::ones({d_model}, at::kFloat));
  if (with_bias && kind == NormKind::kLayerNorm) {
    bias = register_parameter("bias", at::zeros({d_model}, at::kFloat));
  }
}

at::Tensor NormImpl::forward(const at::Tensor& x) {
  const auto wide = at_least_float32(x);
  switch (kind_) {
    case NormKind::kLayerNorm:
      return at::layer_norm(wide, {x.size(-1)}, weight, bias, eps_);
    case NormKind::kRmsNorm:
      return at::rms_norm(wide, {x.size(-1)}, weight, eps_);
  }
  TORCH_CHECK(false, "Norm: unknown kind");
}

}  // namespace dsmoe
