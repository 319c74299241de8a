#include "model/loss/expert_sparsity.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/logical_and.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

#include "model/linear.h"

namespace dsmoe {

at::Tensor expert_sparsity_loss(const at::Tensor& router_probs,
                                const at::Tensor& selected,
                                const at::Tensor& token_mask) {
  TORCH_CHECK(router_probs.sizes() == selected.sizes(),
              "expert_sparsity_loss: expected selected of shape ",
              router_probs.sizes(),
              ", got ",
              selected.sizes());
  const auto probs = at_least_float32(router_probs);
  if (!token_mask.defined()) return at::where(selected, probs, at::zeros_like(probs)).mean();
  TORCH_CHECK(token_mask.sizes() == router_probs.sizes().slice(0, router_probs.dim() - 1),
              "expert_sparsity_loss: expected a mask of shape ",
              router_probs.sizes().slice(0, router_probs.dim() - 1),
              ", got ",
              token_mask.sizes());
  const auto counted = at::logical_and(selected, token_mask.unsqueeze(-1));
  const auto n_gates = token_mask.sum().clamp_min(1) * router_probs.size(-1);
  return at::where(counted, probs, at::zeros_like(probs)).sum() / n_gates;
}

}  // namespace dsmoe
