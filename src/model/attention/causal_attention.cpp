#include "model/attention/causal_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ge.h>
#include <ATen/ops/le.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <algorithm>

#include "csrc_kernels/decode_attention/decode_attention.h"

namespace dsmoe {

AttentionPath choose_attention_path(const AttentionContext& context,
                                    int64_t seq,
                                    at::ScalarType dtype,
                                    at::Device device) {
  const auto* cache = context.cache;
  const bool whole = !context.first_keys.defined();
  if (cache == nullptr) return whole ? AttentionPath::kPass : AttentionPath::kAllStored;
  const bool by_kernel = !at::GradMode::is_enabled() && cache->dtype() == dtype;
  if (device.is_cpu()) {
    return whole && by_kernel ? AttentionPath::kSegments : AttentionPath::kAllStored;
  }
  if (!cache->is_batched()) return AttentionPath::kAllStored;
  if (seq == 1 && by_kernel && has_decode_attention_kernels(cache->batched_rows(0).first)) {
    return AttentionPath::kDecoding;
  }
  return whole && cache->is_empty() ? AttentionPath::kPass : AttentionPath::kAllStored;
}

at::Tensor attend_decoding(const AttentionContext& context,
                           int64_t layer,
                           const at::Tensor& q,
                           const at::Tensor& k,
                           const at::Tensor& v,
                           HeadLayout layout,
                           const at::Tensor& expert_weights) {
  const auto [keys, values] = context.cache->batched_rows(layer);
  const DecodeCache cache{keys, values, context.positions.reshape({-1})};
  const auto& tables = context.rotary;
  append_token(cache, k.contiguous(), v.contiguous(), tables);
  return decode_attention(cache, q.contiguous(), layout, tables, expert_weights);
}

VisibleKeys extend_keys(const AttentionContext& context,
                        int64_t layer,
                        const at::Tensor& k,
                        const at::Tensor& v) {
  const auto rotated = apply_rotary(k, context.rotary).transpose(1, 2);
  if (context.cache == nullptr) return {rotated, v.transpose(1, 2)};
  auto [keys, values] = context.cache->append(layer, rotated, v.transpose(1, 2));
  return {keys, values};
}

at::Tensor attend_stored(const AttentionContext& context,
                         const KvRows& rows,
                         const at::Tensor& q,
                         HeadLayout layout) {
  const auto& segments = context.cache->segments();
  const bool any_prompt =
      std::any_of(segments.begin(), segments.end(), [](const auto& s) { return s.is_prompt; });
  const auto rotated = any_prompt ? apply_rotary(q, context.rotary) : at::Tensor();
  std::vector<at::Tensor> pieces;
  int64_t token = 0;
  int64_t n_rows = 0;  // tokens before this one that wait for row-by-row attention
  const auto do_rows = [&] {
    if (n_rows == 0) return;
    const bool all = n_rows == q.size(0);
    pieces.push_back(cached_attention(
        rows,
        {.q = q.narrow(0, token - n_rows, n_rows),
         .token_of_row = all ? at::Tensor() : at::arange(token - n_rows, token, at::kLong),
         .layout = layout,
         .tables = context.rotary}));
    n_rows = 0;
  };
  for (const auto& segment : segments) {
    if (!segment.is_prompt) {
      n_rows += segment.n_tokens;
    } else {
      do_rows();
      const auto sequence = static_cast<size_t>(segment.sequence);
      const int64_t end = context.cache->length(segment.sequence) + segment.n_tokens;
      pieces.push_back(continued_attention(rotated.narrow(0, token, segment.n_tokens),
                                           rows.keys[sequence].narrow(1, 0, end),
                                           rows.values[sequence].narrow(1, 0, end),
                                           layout));
    }
    token += segment.n_tokens;
  }
  do_rows();
  return pieces.size() == 1 ? pieces[0] : at::cat(pieces);
}

at::Tensor attend(const at::Tensor& q,
                  const VisibleKeys& keys,
                  const at::Tensor& positions,
                  const at::Tensor& first_keys) {
  const bool grouped = q.size(1) != keys.k.size(1);
  const auto k = keys.k.to(q.scalar_type());
  const auto v = keys.v.to(q.scalar_type());
  const auto key_positions = at::arange(k.size(2), positions.options());
  // [batch, 1, n_queries, n_keys]: true where the query sees the key
  auto mask = at::le(key_positions, positions.unsqueeze(-1)).unsqueeze(1);
  if (first_keys.defined()) {
    mask = mask & at::ge(key_positions, first_keys.unsqueeze(-1)).unsqueeze(1);
  }
  if (q.size(2) == 1 && grouped) {
    // One query a head: the heads of one key/value head become the rows of one product.
    const auto folded = q.reshape({q.size(0), k.size(1), q.size(1) / k.size(1), q.size(3)});
    return at::scaled_dot_product_attention(folded, k, v, mask).reshape(q.sizes());
  }
  return at::scaled_dot_product_attention(q, k, v, mask, 0.0, false, std::nullopt, grouped);
}

at::Tensor self_attention(const AttentionContext& context,
                          int64_t layer,
                          const at::Tensor& q,
                          const at::Tensor& k,
                          const at::Tensor& v,
                          HeadLayout layout) {
  const auto path = choose_attention_path(context, q.size(1), q.scalar_type(), q.device());
  if (path == AttentionPath::kSegments) {
    const auto rows = context.cache->rows(layer);
    append_to_cache(rows, k.contiguous(), v.contiguous(), context.rotary);
    return attend_stored(context, rows, q.flatten(0, 1), layout).view(q.sizes());
  }
  if (path == AttentionPath::kDecoding) {
    const auto row = [](const at::Tensor& heads) { return heads.flatten(0, 1); };
    return attend_decoding(context, layer, row(q), row(k), row(v), layout).view(q.sizes());
  }
  const auto rotated = apply_rotary(q, context.rotary);
  if (path == AttentionPath::kPass) {
    const auto rotated_keys = apply_rotary(k, context.rotary);
    if (context.cache != nullptr) {
      context.cache->fill(layer, rotated_keys.transpose(1, 2), v.transpose(1, 2));
    }
    return causal_attention(rotated, rotated_keys, v, layout);
  }
  const auto keys = extend_keys(context, layer, k, v);
  const int64_t batch = q.size(0);
  const int64_t seq = q.size(1);
  const int64_t group = q.size(2) / k.size(2);  // query heads of one key/value head
  const bool by_expert = layout == HeadLayout::kExpertMajor;
  // (group, kv head) -> (kv head, group): heads of one key/value head become adjacent.
  const auto by_kv_head = by_expert ? rotated.view({batch, seq, group, k.size(2), q.size(3)})
                                          .transpose(2, 3)
                                          .reshape(q.sizes())
                                    : rotated;
  const auto y = attend(by_kv_head.transpose(1, 2), keys, context.positions, context.first_keys)
                     .transpose(1, 2);
  if (!by_expert) return y.contiguous();
  return y.reshape({batch, seq, k.size(2), group, q.size(3)}).transpose(2, 3).reshape(q.sizes());
}

CausalAttentionImpl::CausalAttentionImpl(int64_t d_model,
                                         const AttentionConfig& config,
                                         Biases biases,
                                         double norm_eps)
    : n_heads_(config.n_heads), n_kv_heads_(config.n_kv_heads), head_dim_(config.head_dim) {
  const bool inner = biases == Biases::kAll;
  q_proj_ = register_module("q_proj", Linear(d_model, n_heads_ * head_dim_, inner));
  k_proj_ = register_module("k_proj", Linear(d_model, n_kv_heads_ * head_dim_, inner));
  v_proj_ = register_module("v_proj", Linear(d_model, n_kv_heads_ * head_dim_, inner));
  o_proj_ =
      register_module("o_proj", Linear(n_heads_ * head_dim_, d_model, biases != Biases::kNone));
  if (config.qk_norm) {
    const auto norm = [&](int64_t width) {
      return Norm(NormKind::kRmsNorm, width, norm_eps, false);
    };
    q_norm_ = register_module("q_norm", norm(n_heads_ * head_dim_));
    k_norm_ = register_module("k_norm", norm(n_kv_heads_ * head_dim_));
  }
}

at::Tensor CausalAttentionImpl::forward(const at::Tensor& x,
                                        const AttentionContext& context,
                                        int64_t layer) {
  const auto split = [&](const at::Tensor& y, int64_t heads) {
    return y.view({x.size(0), x.size(1), heads, head_dim_});
  };
  const auto normed = [](Norm& norm, const at::Tensor& y) {
    return norm.is_empty() ? y
                           : norm(ResidualStream{at_least_float32(y), {}}, y.scalar_type()).normed;
  };
  const auto qkv = project_together(x, {q_proj_, k_proj_, v_proj_});
  const auto y = self_attention(context,
                                layer,
                                split(normed(q_norm_, qkv[0]), n_heads_),
                                split(normed(k_norm_, qkv[1]), n_kv_heads_),
                                split(qkv[2], n_kv_heads_),
                                HeadLayout::kKvMajor);
  return o_proj_(y.flatten(2));
}

void CausalAttentionImpl::pack(const PackOptions& options) {
  for (auto& linear : {q_proj_, k_proj_, v_proj_, o_proj_}) linear.ptr()->pack(options);
}

}  // namespace dsmoe
