#include <ATen/TensorOperators.h>
#include <ATen/ops/layer_norm.h>
#include <ATen/ops/rms_norm.h>

#include "csrc_kernels/residual_norm/residual_norm.h"

namespace dsmoe {

ResidualNormOutput residual_norm_ref(const at::Tensor& x,
                                     const at::Tensor& y,
                                     const NormParameters& parameters,
                                     at::ScalarType type) {
  const auto residual = y.defined() ? x + y.to(x.scalar_type()) : x;
  const auto& [kind, eps, weight, bias] = parameters;
  const auto normed = kind == NormKind::kLayerNorm
                          ? at::layer_norm(residual, {x.size(-1)}, weight, bias, eps)
                          : at::rms_norm(residual, {x.size(-1)}, weight, eps);
  return {residual, normed.to(type)};
}

}  // namespace dsmoe
