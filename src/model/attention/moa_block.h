#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include "model/attention/causal_attention.h"
#include "model/model_config.h"
#include "model/moe/ds_moe_layer.h"
#include "model/moe/router.h"

namespace dsmoe {

/// arXiv:2404.05567 (DS-MoE): a mixture of attention experts. Each has its own query and output
/// projections; all share keys and values, so the cache does not depend on the routing. Query head
/// j of every expert uses key/value head j.
///
/// q_proj [n_experts * heads_per_expert * head_dim, d_model], expert-major: (expert, head, dim);
/// o_proj its transposed layout; k_proj, v_proj [heads_per_expert * head_dim, d_model]. The bias of
/// o_proj, where there is one, is added once and never weighted. Source: section 3.2, equations 7
/// and 8 (where K_i, V_i carry the head index).
class MoABlockImpl : public torch::nn::Module {
 public:
  MoABlockImpl(int64_t d_model, const AttentionConfig& config, Biases biases);

  /// x [batch, seq, d_model], in the compute dtype, as is y; router logits are float32
  MoeOutput forward(const at::Tensor& x,
                    const AttentionContext& context,
                    int64_t layer,
                    const RoutingPolicy& policy);

  void pack(const PackOptions& options);

  Router router{nullptr};

 private:
  /// Queries of (token, expert) pairs, [n_rows, heads_per_expert, head_dim], and the pass's keys
  /// and values, [batch, seq, heads_per_expert, head_dim], none of them turned.
  struct PairHeads {
    at::Tensor q;
    at::Tensor k;
    at::Tensor v;
  };
  MoeOutput forward_packed(const at::Tensor& x,
                           const AttentionContext& context,
                           int64_t layer,
                           const RoutingPolicy& policy);
  at::Tensor attend_packed(const AttentionContext& context,
                           int64_t layer,
                           const PairHeads& heads,
                           const at::Tensor& token_of_row,
                           bool all_pairs);
  at::Tensor forward_dense(const at::Tensor& x,
                           const AttentionContext& context,
                           int64_t layer,
                           const at::Tensor& expert_weights);
  at::Tensor forward_sparse(const at::Tensor& x,
                            const AttentionContext& context,
                            int64_t layer,
                            const ExpertDispatch& dispatch);
  at::Tensor forward_decoding(const at::Tensor& x,
                              const AttentionContext& context,
                              int64_t layer,
                              const at::Tensor& expert_weights,
                              bool sparse);
  at::Tensor split_heads(const at::Tensor& y, int64_t n_heads) const;

  int64_t n_experts_;
  int64_t heads_per_expert_;
  int64_t head_dim_;
  bool renormalise_;
  Linear q_proj_{nullptr};
  Linear k_proj_{nullptr};
  Linear v_proj_{nullptr};
  Linear o_proj_{nullptr};
};
TORCH_MODULE(MoABlock);

}  // namespace dsmoe
