#pragma once

#include <ATen/core/Tensor.h>

#include "csrc_kernels/token_choice/token_choice.h"
#include "model/model_output.h"
#include "model/moe/router.h"

namespace dsmoe {

/// A mixture layer's result.
struct MoeOutput {
  at::Tensor y;           // [batch, seq, d_model]
  RoutingRecord routing;  // of this call
};

/// y [n_tokens, d_model], in the order of the router's tokens.
inline MoeOutput moe_output(const at::Tensor& y,
                            const RouterOutput& routed,
                            const TokenChoice& choice) {
  const auto& probs = routed.router_probs;
  return {y.view({probs.size(0), probs.size(1), y.size(1)}),
          {routed.router_logits, probs, choice.selected.view(probs.sizes())}};
}

}  // namespace dsmoe
