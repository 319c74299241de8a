#pragma once

#include <ATen/core/Tensor.h>

namespace dsmoe {

/// Balance loss of sparsely trained mixtures: n_experts * sum_i f_i P_i, with f_i the share of
/// selections that went to expert i (no gradient) and P_i the mean probability; 1 when balanced.
///
/// router_probs  [..., n_experts]
/// selected      [..., n_experts] bool
/// Source: arXiv:2101.03961, equations 4 to 6.
at::Tensor switch_balance_loss(const at::Tensor& router_probs, const at::Tensor& selected);

/// Mean over tokens of logsumexp(router_logits) squared; keeps router logits small.
/// router_logits [..., n_experts]. Source: arXiv:2202.08906, equation 5.
at::Tensor router_z_loss(const at::Tensor& router_logits);

}  // namespace dsmoe
