#include "model/attention/moa_block.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/argsort.h>
#include <ATen/ops/bincount.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/floor_divide.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <optional>

#include "csrc_kernels/cached_attention/cached_attention.h"
#include "csrc_kernels/expert_gemv/expert_gemv.h"
#include "csrc_kernels/expert_rows/expert_rows.h"
#include "csrc_kernels/grouped_linear/grouped_linear.h"
#include "csrc_kernels/weighted_activation/weighted_activation.h"
#include "model/attention/routed_heads.h"

namespace dsmoe {
namespace {

// Sparse queries of one sequence, padded to the longest list of the batch.
struct PaddedSlots {
  at::Tensor slot_of_row;  // [n_rows] int64 in 0 .. batch * n_slots
  int64_t n_slots;         // queries per sequence after padding
};

PaddedSlots pad_by_sequence(const at::Tensor& sequence_of_row, int64_t batch) {
  const auto counts = at::bincount(sequence_of_row, {}, batch);  // [batch]
  // At least one: a batch without any selected expert takes the same way.
  const int64_t n_slots = std::max<int64_t>(counts.max().item<int64_t>(), 1);
  const auto starts = counts.cumsum(0) - counts;
  const auto order = at::argsort(sequence_of_row, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  const auto sequence = sequence_of_row.index_select(0, order);
  const auto rank = at::arange(order.size(0), order.options()) - starts.index_select(0, sequence);
  auto slot_of_row = at::empty_like(order);
  slot_of_row.index_copy_(0, order, sequence * n_slots + rank);
  return {slot_of_row, n_slots};
}

}  // namespace

MoABlockImpl::MoABlockImpl(int64_t d_model, const AttentionConfig& config, Biases biases)
    : n_experts_(config.n_experts),
      heads_per_expert_(config.heads_per_expert),
      head_dim_(config.head_dim),
      renormalise_(config.router.renormalise) {
  const int64_t d_keys = heads_per_expert_ * head_dim_;
  const bool inner = biases == Biases::kAll;
  router = register_module("router", Router(d_model, n_experts_, config.router));
  q_proj_ = register_module("q_proj", Linear(d_model, n_experts_ * d_keys, inner));
  k_proj_ = register_module("k_proj", Linear(d_model, d_keys, inner));
  v_proj_ = register_module("v_proj", Linear(d_model, d_keys, inner));
  o_proj_ =
      register_module("o_proj", Linear(n_experts_ * d_keys, d_model, biases != Biases::kNone));
}

MoeOutput MoABlockImpl::forward(const at::Tensor& x,
                                const AttentionContext& context,
                                int64_t layer,
                                const RoutingPolicy& policy) {
  if (q_proj_->runs_packed()) return forward_packed(x, context, layer, policy);
  const auto routed = router(x);  // [batch, seq, n_experts]
  const auto selection = select_experts(routed.router_probs.flatten(0, 1), policy, renormalise_);
  const int64_t expert_parameters = 2 * heads_per_expert_ * head_dim_ * x.size(2);  // Q and O
  const bool sparse = runs_sparse(policy, n_experts_, expert_parameters);
  const HeadProjections heads{
      q_proj_, k_proj_, v_proj_, o_proj_, n_experts_, heads_per_expert_, head_dim_};
  const auto y =
      runs_decode_kernels(context, x.size(1), x.scalar_type())
          ? forward_decoding(x, context, layer, selection.expert_weights.contiguous(), sparse)
      : !sparse ? forward_dense(x, context, layer, selection.expert_weights)
      : runs_routed_attention(x, selection, heads)
          ? routed_attention(x, context, layer, selection, heads)
          : forward_sparse(x, context, layer, make_dispatch(selection));
  return {y,
          {routed.router_logits,
           routed.router_probs,
           selection.selected.view(routed.router_probs.sizes())}};
}

// [batch, seq, n_heads * head_dim] -> [batch, seq, n_heads, head_dim]
at::Tensor MoABlockImpl::split_heads(const at::Tensor& y, int64_t n_heads) const {
  return y.view({y.size(0), y.size(1), n_heads, head_dim_});
}

at::Tensor MoABlockImpl::forward_dense(const at::Tensor& x,
                                       const AttentionContext& context,
                                       int64_t layer,
                                       const at::Tensor& expert_weights) {
  // Heads stand in (expert, head) order and head j of every expert reads key/value head j.
  const auto heads = self_attention(context,
                                    layer,
                                    split_heads(q_proj_(x), n_experts_ * heads_per_expert_),
                                    split_heads(k_proj_(x), heads_per_expert_),
                                    split_heads(v_proj_(x), heads_per_expert_),
                                    HeadLayout::kExpertMajor);
  const auto y = weighted_activation_linear(Activation::kIdentity,
                                            heads.view({x.size(0) * x.size(1), -1}),
                                            {},
                                            expert_weights.contiguous(),
                                            o_proj_->weight_as(x.scalar_type()))
                     .view(x.sizes());
  return o_proj_->bias.defined() ? y + o_proj_->bias.to(x.scalar_type()) : y;
}

// One token a sequence on a device: heads of experts without weight are not attended, and for a
// handful of tokens their projections not read.
at::Tensor MoABlockImpl::forward_decoding(const at::Tensor& x,
                                          const AttentionContext& context,
                                          int64_t layer,
                                          const at::Tensor& expert_weights,
                                          bool sparse) {
  const auto dtype = x.scalar_type();
  const auto flat = x.flatten(0, 1).contiguous();  // [batch, d_model]
  const bool few = sparse && flat.size(0) <= kMostGemvTokens && has_expert_gemv(flat);
  const auto heads = [&](const at::Tensor& y) { return y.view({flat.size(0), -1, head_dim_}); };
  const auto q = few ? expert_gemv_hidden(flat,
                                          Activation::kIdentity,
                                          {q_proj_->weight_as(dtype), q_proj_->bias},
                                          {},
                                          expert_weights,
                                          /*weighted=*/false)
                     : q_proj_(flat);  // [batch, n_experts * heads_per_expert * head_dim]
  const auto y = attend_decoding(context,
                                 layer,
                                 heads(q),
                                 heads(k_proj_(flat)),
                                 heads(v_proj_(flat)),
                                 HeadLayout::kExpertMajor,
                                 sparse ? expert_weights : at::Tensor())
                     .flatten(1);
  if (few) {
    return expert_gemv_sum(
               y, {o_proj_->weight_as(dtype), o_proj_->bias}, expert_weights, /*weighted=*/true)
        .view(x.sizes());
  }
  const auto sum = weighted_activation_linear(
      Activation::kIdentity, y, {}, expert_weights, o_proj_->weight_as(dtype));
  return (o_proj_->bias.defined() ? sum + o_proj_->bias.to(dtype) : sum).view(x.sizes());
}

at::Tensor MoABlockImpl::forward_sparse(const at::Tensor& x,
                                        const AttentionContext& context,
                                        int64_t layer,
                                        const ExpertDispatch& dispatch) {
  const auto keys = extend_keys(context,
                                layer,
                                split_heads(k_proj_(x), heads_per_expert_),
                                split_heads(v_proj_(x), heads_per_expert_));
  const int64_t batch = x.size(0);
  const int64_t seq = x.size(1);
  const int64_t d_keys = heads_per_expert_ * head_dim_;
  const auto dtype = x.scalar_type();
  const auto& tokens = dispatch.token_of_row;
  auto output =
      at::zeros({batch * seq, x.size(2)}, x.options().dtype(at_least_float32(x).scalar_type()));
  auto q = grouped_linear(x.flatten(0, 1).index_select(0, tokens),
                          q_proj_->weight_as(dtype),
                          dispatch.offsets,
                          ExpertAxis::kRows);  // [n_rows, d_keys]
  if (q_proj_->bias.defined()) {
    q = q +
        q_proj_->bias.to(dtype).view({n_experts_, d_keys}).index_select(0, dispatch.expert_of_row);
  }
  q = q.view({-1, heads_per_expert_, head_dim_});
  if (context.rotary.cos.defined()) {
    const auto table_rows = tokens.remainder(context.rotary.cos.size(0));
    q = apply_rotary(q,
                     {context.rotary.cos.index_select(0, table_rows),
                      context.rotary.sin.index_select(0, table_rows)});
  }
  const auto padded = pad_by_sequence(at::floor_divide(tokens, seq), batch);
  const auto slots = batch * padded.n_slots;
  // An unused slot asks at position 0; its answer is never read.
  const auto in_slots = [&](const at::Tensor& of_tokens) {
    return at::zeros({slots}, tokens.options())
        .index_copy(0, padded.slot_of_row, of_tokens.flatten().index_select(0, tokens))
        .view({batch, padded.n_slots});
  };
  const auto first_keys =
      context.first_keys.defined() ? in_slots(context.first_keys) : at::Tensor();
  const auto queries = at::zeros({slots, heads_per_expert_, head_dim_}, q.options())
                           .index_copy(0, padded.slot_of_row, q)
                           .view({batch, padded.n_slots, heads_per_expert_, head_dim_})
                           .transpose(1, 2);
  const auto y = attend(queries,
                        keys,
                        in_slots(context.positions),
                        first_keys)  // [batch, heads_per_expert, n_slots, head_dim]
                     .transpose(1, 2)
                     .reshape({slots, d_keys})
                     .index_select(0, padded.slot_of_row);
  const auto y_rows = grouped_linear(y * dispatch.weight_of_row.to(dtype).unsqueeze(1),
                                     o_proj_->weight_as(dtype),
                                     dispatch.offsets,
                                     ExpertAxis::kColumns);
  output = output.index_add(0, tokens, at_least_float32(y_rows));
  if (o_proj_->bias.defined()) output = output + o_proj_->bias;
  return output.view(x.sizes()).to(dtype);
}

void MoABlockImpl::pack(const PackOptions& options) {
  router->pack(options);
  q_proj_->pack(options, n_experts_);
  k_proj_->pack(options);
  v_proj_->pack(options);
  o_proj_->pack(options, n_experts_, ExpertAxis::kColumns);
}

MoeOutput MoABlockImpl::forward_packed(const at::Tensor& x,
                                       const AttentionContext& context,
                                       int64_t layer,
                                       const RoutingPolicy& policy) {
  TORCH_CHECK(
      !context.first_keys.defined(),
      "MoABlock: expected one document per sequence, got several; packed weights take these "
      "one by one");
  const auto routed = router(x);  // [batch, seq, n_experts]
  const auto& probs = routed.router_probs;
  auto rule = choice_rule(policy, static_cast<double>(n_experts_));
  rule.renormalise = renormalise_;
  const bool list_all = policy.execution == Execution::kDense;
  const auto choice = choose_experts(probs.flatten(0, 1), rule, list_all);
  const auto& pairs = choice.pairs;
  const auto flat = x.flatten(0, 1);  // [n_tokens, d_model]
  const ExpertPairs unweighted{pairs.token_of_row, {}, pairs.offsets};
  const auto q = expert_hidden(flat, unweighted, {.up = q_proj_->packed()})
                     .view({-1, heads_per_expert_, head_dim_});
  const auto kv = project_together(x, {k_proj_, v_proj_});
  const bool all_pairs = policy.selection == Selection::kAll || list_all;
  const auto heads = attend_packed(
      context,
      layer,
      {q, split_heads(kv[0], heads_per_expert_), split_heads(kv[1], heads_per_expert_)},
      pairs.token_of_row,
      all_pairs);
  const auto weighted = heads.view({q.size(0), heads_per_expert_ * head_dim_}) *
                        pairs.weight_of_row.to(x.scalar_type()).unsqueeze(1);  // [n_rows, d_keys]
  const auto y = expert_sum(weighted, pairs, o_proj_->packed(), flat.size(0));
  return {y.view(x.sizes()), {routed.router_logits, probs, choice.selected.view(probs.sizes())}};
}

// [n_rows, heads_per_expert, head_dim], the attention of each (token, expert) pair; stores the new
// keys and values where there is a cache. all_pairs: every token has every expert.
at::Tensor MoABlockImpl::attend_packed(const AttentionContext& context,
                                       int64_t layer,
                                       const PairHeads& heads,
                                       const at::Tensor& token_of_row,
                                       bool all_pairs) {
  const auto& k = heads.k;
  const int64_t batch = k.size(0);
  const int64_t seq = k.size(1);
  const auto& tables = context.rotary;
  // (expert, token, head) -> (token, expert, head)
  const auto by_token = [&] {
    return heads.q.view({n_experts_, batch * seq, heads_per_expert_, head_dim_})
        .transpose(0, 1)
        .reshape({batch * seq, n_experts_ * heads_per_expert_, head_dim_})
        .contiguous();  // with one head an expert, reshape copies nothing
  };
  const auto by_expert = [&](const at::Tensor& y) {
    return y.view({batch * seq, n_experts_, heads_per_expert_, head_dim_})
        .transpose(0, 1)
        .reshape(heads.q.sizes());
  };
  if (context.cache == nullptr && all_pairs) {
    const auto q = by_token().view({batch, seq, -1, head_dim_});
    return by_expert(causal_attention(apply_rotary(q, context.rotary),
                                      apply_rotary(k, context.rotary),
                                      heads.v,
                                      HeadLayout::kExpertMajor));
  }
  std::optional<KvCache> own;
  if (context.cache == nullptr) {
    own.emplace(KvShape{1, heads_per_expert_, head_dim_, k.scalar_type()}, batch, seq)
        .begin_pass(seq);
  }
  const auto rows = own ? own->rows(0) : context.cache->rows(layer);
  append_to_cache(rows, k, heads.v, tables);
  if (all_pairs) {
    return by_expert(attend_stored(context, rows, by_token(), HeadLayout::kExpertMajor));
  }
  return cached_attention(rows, {.q = heads.q, .token_of_row = token_of_row, .tables = tables});
}

}  // namespace dsmoe
