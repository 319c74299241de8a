#include "model/loss/mutual_information.h"

#include "csrc_kernels/mutual_information/mutual_information.h"
#include "model/linear.h"

namespace dsmoe {
namespace {

// [n_tokens, n_experts], float32 or wider
at::Tensor flat_logits(const at::Tensor& router_logits) {
  TORCH_CHECK(router_logits.dim() >= 2,
              "mutual_information_loss: expected router_logits [..., n_experts], got ",
              router_logits.sizes());
  return at_least_float32(router_logits.reshape({-1, router_logits.size(-1)}));
}

at::Tensor flat_mask(const at::Tensor& token_mask) {
  return token_mask.defined() ? token_mask.reshape({-1}) : token_mask;
}

}  // namespace

at::Tensor sum_router_probs(const at::Tensor& router_logits, const at::Tensor& token_mask) {
  return sum_softmax(flat_logits(router_logits), flat_mask(token_mask));
}

at::Tensor mutual_information_loss(const at::Tensor& router_logits,
                                   const at::Tensor& token_mask,
                                   const at::Tensor& mean_probs,
                                   std::optional<int64_t> n_tokens_total) {
  TORCH_CHECK(mean_probs.defined() == n_tokens_total.has_value(),
              "mutual_information_loss: expected both mean_probs and n_tokens_total, or neither");
  return mutual_information(
      flat_logits(router_logits), flat_mask(token_mask), mean_probs, n_tokens_total.value_or(0));
}

}  // namespace dsmoe
