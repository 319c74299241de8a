#include "model/loss/router_losses.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/logsumexp.h>

#include "model/linear.h"

namespace dsmoe {

at::Tensor switch_balance_loss(const at::Tensor& router_probs, const at::Tensor& selected) {
  TORCH_CHECK(router_probs.sizes() == selected.sizes(),
              "switch_balance_loss: expected selected of shape ",
              router_probs.sizes(),
              ", got ",
              selected.sizes());
  const int64_t n_experts = router_probs.size(-1);
  const auto mean_probs = at_least_float32(router_probs).reshape({-1, n_experts}).mean(0);
  const auto counts = selected.reshape({-1, n_experts}).sum(0).to(mean_probs.scalar_type());
  return (counts / counts.sum().clamp_min(1.0) * mean_probs).sum() * static_cast<double>(n_experts);
}

at::Tensor router_z_loss(const at::Tensor& router_logits) {
  return at::logsumexp(at_least_float32(router_logits), {-1}).square().mean();
}

}  // namespace dsmoe
