#include "model/attention/causal_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/le.h>
#include <ATen/ops/scaled_dot_product_attention.h>

namespace dsmoe {
namespace {

RotaryTables per_head(const RotaryTables& tables) {
  return {tables.cos.unsqueeze(1), tables.sin.unsqueeze(1)};  // [batch, 1, seq, head_dim / 2]
}

}  // namespace

VisibleKeys extend_keys(const AttentionContext& context,
                        int64_t layer,
                        const at::Tensor& k,
                        const at::Tensor& v) {
  const auto turned = context.rotary.cos.defined() ? apply_rotary(k, per_head(context.rotary)) : k;
  if (context.cache == nullptr) return {turned, v};
  auto [keys, values] = context.cache->append(layer, turned, v);
  return {keys, values};
}

at::Tensor attend(const at::Tensor& q, const VisibleKeys& keys, const at::Tensor& positions) {
  const bool grouped = q.size(1) != keys.k.size(1);
  const auto k = keys.k.to(q.scalar_type());
  const auto v = keys.v.to(q.scalar_type());
  if (!positions.defined()) {
    return at::scaled_dot_product_attention(
        q, k, v, {}, 0.0, /*is_causal=*/true, std::nullopt, grouped);
  }
  const auto key_positions = at::arange(k.size(2), positions.options());
  // [batch, 1, n_queries, n_keys]: true where the key may be seen
  const auto mask = at::le(key_positions, positions.unsqueeze(-1)).unsqueeze(1);
  if (q.size(2) == 1 && grouped) {
    // One query a head: the heads of one key/value head become the rows of one product.
    const auto folded = q.reshape({q.size(0), k.size(1), q.size(1) / k.size(1), q.size(3)});
    return at::scaled_dot_product_attention(folded, k, v, mask).reshape(q.sizes());
  }
  return at::scaled_dot_product_attention(q, k, v, mask, 0.0, false, std::nullopt, grouped);
}

CausalAttentionImpl::CausalAttentionImpl(int64_t d_model, const AttentionConfig& config, bool bias)
    : n_heads_(config.n_heads), n_kv_heads_(config.n_kv_heads), head_dim_(config.head_dim) {
  q_proj_ = register_module("q_proj", Linear(d_model, n_heads_ * head_dim_, bias));
  k_proj_ = register_module("k_proj", Linear(d_model, n_kv_heads_ * head_dim_, bias));
  v_proj_ = register_module("v_proj", Linear(d_model, n_kv_heads_ * head_dim_, bias));
  o_proj_ = register_module("o_proj", Linear(n_heads_ * head_dim_, d_model, bias));
}

at::Tensor CausalAttentionImpl::forward(const at::Tensor& x,
                                        const AttentionContext& context,
                                        int64_t layer) {
  const int64_t batch = x.size(0);
  const int64_t seq = x.size(1);
  // [batch, seq, heads * head_dim] -> [batch, heads, seq, head_dim]
  const auto split = [&](const at::Tensor& y, int64_t heads) {
    return y.view({batch, seq, heads, head_dim_}).transpose(1, 2);
  };
  auto q = split(q_proj_(x), n_heads_);
  if (context.rotary.cos.defined()) q = apply_rotary(q, per_head(context.rotary));
  const auto keys =
      extend_keys(context, layer, split(k_proj_(x), n_kv_heads_), split(v_proj_(x), n_kv_heads_));
  const auto y = attend(q, keys, context.cache ? context.positions : at::Tensor());
  return o_proj_(y.transpose(1, 2).reshape({batch, seq, n_heads_ * head_dim_}));
}

}  // namespace dsmoe
