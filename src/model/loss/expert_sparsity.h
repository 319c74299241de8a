#pragma once

#include <ATen/core/Tensor.h>

namespace dsmoe {

/// Mean over tokens and experts of the gates that are open, closed ones counting 0: what a layer's
/// activation costs. Between 0 and 1; its gradient reaches open gates only, and pushes them down.
///
/// router_probs  [..., n_experts], sigmoid gates
/// selected      [..., n_experts] bool, the open ones
/// token_mask    [...] bool, tokens that count; undefined: all
/// Source: arXiv:2502.12455, equations 17 to 19, with the mean over tokens.
at::Tensor expert_sparsity_loss(const at::Tensor& router_probs,
                                const at::Tensor& selected,
                                const at::Tensor& token_mask = {});

}  // namespace dsmoe
