#include <ATen/ops/cross_entropy_loss.h>
#include <ATen/ops/linear.h>

#include "csrc_kernels/linear_cross_entropy/linear_cross_entropy.h"

namespace dsmoe {

at::Tensor linear_cross_entropy_ref(const at::Tensor& features,
                                    const at::Tensor& head_weight,
                                    const at::Tensor& targets) {
  const auto logits = at::linear(features, head_weight.to(features.scalar_type()));
  const auto wide = features.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  return at::cross_entropy_loss(logits.to(wide), targets);
}

}  // namespace dsmoe
