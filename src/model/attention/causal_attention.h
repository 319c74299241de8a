#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include "csrc_kernels/causal_attention/causal_attention.h"
#include "model/attention/kv_cache.h"
#include "model/attention/rotary_embedding.h"
#include "model/linear.h"
#include "model/model_config.h"
#include "model/norm.h"

namespace dsmoe {

/// Positions of the tokens of one forward pass; made once per pass, shared by all layers.
struct AttentionContext {
  at::Tensor positions;      // [batch, seq] int64, among the keys
  at::Tensor first_keys;     // [batch, seq] int64, of each token's document; undefined: all 0
  RotaryTables rotary;       // of one sequence or of all tokens; undefined for learned positions
  KvCache* cache = nullptr;  // or null: the tokens are the whole sequence
};

/// Keys and values that are visible to the queries of a pass.
struct VisibleKeys {
  at::Tensor k;  // [batch, n_kv_heads, n_keys, head_dim]
  at::Tensor v;  // [batch, n_kv_heads, n_keys, head_dim]
};

/// Rotates the new keys, stores keys and values in the cache if there is one, and returns all
/// stored ones.
/// k, v [batch, seq, n_kv_heads, head_dim]
VisibleKeys extend_keys(const AttentionContext& context,
                        int64_t layer,
                        const at::Tensor& k,
                        const at::Tensor& v);

/// Softmax attention: a query sees the keys from the first one of its document up to its own
/// position.
///
/// q          [batch, n_heads, n_queries, head_dim]; query head h uses key/value head
///            h / (n_heads / n_kv_heads)
/// positions  [batch, n_queries] int64, of the queries
/// first_keys [batch, n_queries] int64; undefined: all 0
/// returns    [batch, n_heads, n_queries, head_dim]
at::Tensor attend(const at::Tensor& q,
                  const VisibleKeys& keys,
                  const at::Tensor& positions,
                  const at::Tensor& first_keys = {});

/// Attention of the tokens of a pass after their keys were stored in the cache: prompts in blocks,
/// other tokens row by row. No gradient. q [n_tokens, n_heads, head_dim], not rotated; returns the
/// same shape.
at::Tensor attend_stored(const AttentionContext& context,
                         const KvRows& rows,
                         const at::Tensor& q,
                         HeadLayout layout);

/// Rotates queries and keys, then attends over the tokens of the pass or over the cache that they
/// continue.
///
/// q        [batch, seq, n_heads, head_dim]
/// k, v     [batch, seq, n_kv_heads, head_dim]
/// layout   which key/value head a query head uses
/// returns  [batch, seq, n_heads, head_dim]
at::Tensor self_attention(const AttentionContext& context,
                          int64_t layer,
                          const at::Tensor& q,
                          const at::Tensor& k,
                          const at::Tensor& v,
                          HeadLayout layout);

/// What the queries of a pass see, and the kernels that serve it.
enum class AttentionPath {
  kPass,       ///< the tokens of the pass alone: training, scoring, first tokens of a batched cache
  kSegments,   ///< rows of a cache on the CPU, each sequence with its own number of new tokens
  kDecoding,   ///< one new token of each sequence of a batched cache on a device
  kAllStored,  ///< everything that the cache holds, under a mask: gradients, padding, other types
};

/// The decision table of attention, for heads in `dtype` on `device`.
/// seq: tokens of each sequence in the pass
AttentionPath choose_attention_path(const AttentionContext& context,
                                    int64_t seq,
                                    at::ScalarType dtype,
                                    at::Device device);

/// Stores the one token of each sequence and attends over the cache; for AttentionPath::kDecoding.
///
/// q        [batch, n_heads, head_dim], not rotated; k, v [batch, n_kv_heads, head_dim]
/// expert_weights  [batch, n_experts], or undefined, see decode_attention
/// returns  like q
at::Tensor attend_decoding(const AttentionContext& context,
                           int64_t layer,
                           const at::Tensor& q,
                           const at::Tensor& k,
                           const at::Tensor& v,
                           HeadLayout layout,
                           const at::Tensor& expert_weights = {});

/// Dense multi-head attention over shared key/value heads; the dense baseline of MoABlock.
///
/// With qk_norm one RMSNorm normalises all query heads of a token as one vector before they are
/// split and rotated; a second one normalises its keys. Source: OLMoE, arXiv:2409.02060.
class CausalAttentionImpl : public torch::nn::Module {
 public:
  /// norm_eps is added to the mean square of the optional norms.
  CausalAttentionImpl(int64_t d_model,
                      const AttentionConfig& config,
                      Biases biases,
                      double norm_eps = 1e-6);

  /// x [batch, seq, d_model] in the compute dtype; returns the same shape.
  at::Tensor forward(const at::Tensor& x, const AttentionContext& context, int64_t layer);

  void pack(const PackOptions& options);

 private:
  int64_t n_heads_;
  int64_t n_kv_heads_;
  int64_t head_dim_;
  Linear q_proj_{nullptr};  // [n_heads * head_dim, d_model]
  Linear k_proj_{nullptr};  // [n_kv_heads * head_dim, d_model]
  Linear v_proj_{nullptr};  // [n_kv_heads * head_dim, d_model]
  Linear o_proj_{nullptr};  // [d_model, n_heads * head_dim]
  Norm q_norm_{nullptr};    // over n_heads * head_dim; qk_norm only
  Norm k_norm_{nullptr};    // over n_kv_heads * head_dim; qk_norm only
};
TORCH_MODULE(CausalAttention);

}  // namespace dsmoe
