#include "model/norm.h"

#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

namespace dsmoe {

NormImpl::NormImpl(NormKind kind, int64_t d_model, double eps, bool with_bias)
    : kind_(kind), eps_(eps) {
  weight = register_parameter("weight", at::ones({d_model}, at::kFloat));
  if (with_bias && kind == NormKind::kLayerNorm) {
    bias = register_parameter("bias", at::zeros({d_model}, at::kFloat));
  }
}

ResidualNormOutput NormImpl::forward(const ResidualStream& stream, at::ScalarType dtype) {
  return residual_norm(stream.sum,
                       stream.pending,
                       {.kind = kind_, .eps = eps_, .weight = weight, .bias = bias},
                       dtype);
}

}  // namespace dsmoe
