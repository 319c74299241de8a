#pragma once

#include <ATen/core/Tensor.h>

namespace dsmoe {

/// Mean gate over tokens and experts, with closed gates counted as 0: the cost of a layer's
/// activation. Between 0 and 1. The gradient reaches only open gates and decreases them.
///
/// router_probs  [..., n_experts], sigmoid gates
/// selected      [..., n_experts] bool, the open ones
/// token_mask    [...] bool, tokens that count; undefined: all
/// Source: arXiv:2502.12455, equations 17 to 19, with the mean over tokens.
at::Tensor expert_sparsity_loss(const at::Tensor& router_probs,
                                const at::Tensor& selected,
                                const at::Tensor& token_mask = {});

}  // namespace dsmoe
