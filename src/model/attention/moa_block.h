#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include "model/attention/causal_attention.h"
#include "model/experts/expert_backend.h"
#include "model/model_config.h"
#include "model/moe/moe_output.h"
#include "model/moe/router.h"

namespace dsmoe {

/// A mixture of attention experts (DS-MoE, arXiv:2404.05567). Each expert has its own query and
/// output projections; all experts share keys and values, so the cache does not depend on the
/// routing. Query head j of every expert uses key/value head j.
///
/// q_proj [n_experts * heads_per_expert * head_dim, d_model], expert-major: (expert, head, dim);
/// o_proj its transposed layout; k_proj, v_proj [heads_per_expert * head_dim, d_model]. The bias of
/// o_proj, if there is one, is added once and not weighted. Source: section 3.2, equations 7
/// and 8 (where K_i, V_i carry the head index).
class MoABlockImpl : public torch::nn::Module {
 public:
  MoABlockImpl(int64_t d_model, const AttentionConfig& config, Biases biases);

  /// x, y [batch, seq, d_model] in the compute dtype; router logits are float32.
  MoeOutput forward(const at::Tensor& x,
                    const AttentionContext& context,
                    int64_t layer,
                    const RoutingPolicy& policy);

  void pack(const PackOptions& options);
  const Experts& experts() const { return experts_; }

  Router router{nullptr};

 private:
  int64_t heads_per_expert_;
  int64_t head_dim_;
  bool renormalise_;
  Experts experts_;  // q_proj and o_proj
  Linear k_proj_{nullptr};
  Linear v_proj_{nullptr};
};
TORCH_MODULE(MoABlock);

}  // namespace dsmoe
