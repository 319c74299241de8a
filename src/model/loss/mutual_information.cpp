#include "model/loss/mutual_information.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/softmax.h>

#include <algorithm>

#include "model/linear.h"

namespace dsmoe {
namespace {

// [n_counted, n_experts], float32 or wider
at::Tensor counted_logits(const at::Tensor& router_logits, const at::Tensor& token_mask) {
  const auto flat = at_least_float32(router_logits.reshape({-1, router_logits.size(-1)}));
  if (!token_mask.defined()) return flat;
  TORCH_CHECK(token_mask.numel() == flat.size(0),
              "mutual_information_loss: expected a mask of ",
              flat.size(0),
              " tokens, got ",
              token_mask.numel());
  return flat.index_select(0, token_mask.reshape({-1}).nonzero().squeeze(1));
}

}  // namespace

at::Tensor sum_router_probs(const at::Tensor& router_logits, const at::Tensor& token_mask) {
  return at::softmax(counted_logits(router_logits, token_mask).detach(), -1).sum(0);
}

at::Tensor mutual_information_loss(const at::Tensor& router_logits,
                                   const at::Tensor& token_mask,
                                   const at::Tensor& mean_probs,
                                   std::optional<int64_t> n_tokens_total) {
  TORCH_CHECK(router_logits.dim() >= 2,
              "mutual_information_loss: expected router_logits [..., n_experts], got ",
              router_logits.sizes());
  TORCH_CHECK(mean_probs.defined() == n_tokens_total.has_value(),
              "mutual_information_loss: mean_probs and n_tokens_total come together");
  const auto logits = counted_logits(router_logits, token_mask);
  const auto log_probs = at::log_softmax(logits, -1);  // [n_counted, n_experts]
  const auto probs = log_probs.exp();
  const auto mean = mean_probs.defined() ? mean_probs.to(logits.scalar_type())
                                         : probs.detach().mean(0);  // [n_experts]
  const auto n_tokens = n_tokens_total.value_or(logits.size(0));
  // KL(p_t || mean) = sum p_t log p_t - sum p_t log mean; an expert that no token wants adds
  // nothing.
  const auto kl = (probs * log_probs).sum() - (probs * mean.detach().clamp_min(1e-38).log()).sum();
  return -kl / static_cast<double>(std::max<int64_t>(n_tokens, 1));
}

}  // namespace dsmoe
