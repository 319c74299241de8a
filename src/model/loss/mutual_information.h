#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace dsmoe {

/// Minus the mutual information between token and expert, natural log: balance over the batch and
/// concentration per token in one number.
///
///   L = -(1/N) sum_t KL(p_t || p_mean),  from -log(n_experts) (best) to 0 (worst)
///
/// router_logits   [..., n_experts]; softmax over the last dimension gives p_t
/// token_mask      [...] bool, tokens that count; undefined: all
/// mean_probs      [n_experts]; undefined: the mean over this call's counted tokens (local scope).
///                 Given: the mean over the whole batch (global scope), a constant here
/// n_tokens_total  tokens of the whole batch, with mean_probs; else this call's counted tokens
/// returns         a scalar, float32 (float64 for float64)
/// The mean is a constant to the gradient in both cases; this loses nothing, as its derivative
/// vanishes. If all tokens agree, the loss has its worst value and a zero gradient: start from
/// random weights. Source: arXiv:2404.05567, section 3.3, equations 4 to 6.
at::Tensor mutual_information_loss(const at::Tensor& router_logits,
                                   const at::Tensor& token_mask = {},
                                   const at::Tensor& mean_probs = {},
                                   std::optional<int64_t> n_tokens_total = std::nullopt);

/// Sum of router probabilities over the counted tokens, [n_experts], for the global mean.
at::Tensor sum_router_probs(const at::Tensor& router_logits, const at::Tensor& token_mask = {});

}  // namespace dsmoe
