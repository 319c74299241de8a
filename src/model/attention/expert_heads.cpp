#include "model/attention/expert_heads.h"

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

namespace dsmoe {
namespace {

// Sparse queries of one sequence, padded to the longest list of the batch.
struct PaddedSlots {
  at::Tensor slot_of_row;  // [n_rows] int64 in 0 .. batch * n_slots
  int64_t n_slots;         // queries per sequence after padding
};

PaddedSlots pad_by_sequence(const at::Tensor& sequence_of_row, int64_t batch) {
  const auto counts = at::bincount(sequence_of_row, {}, batch);  // [batch]
  // At least one: a batch without any selected expert runs the same code.
  const int64_t n_slots = std::max<int64_t>(counts.max().item<int64_t>(), 1);
  const auto starts = counts.cumsum(0) - counts;
  const auto order = at::argsort(sequence_of_row, /*stable=*/true, /*dim=*/0, /*descending=*/false);
  const auto sequence = sequence_of_row.index_select(0, order);
  const auto rank = at::arange(order.size(0), order.options()) - starts.index_select(0, sequence);
  auto slot_of_row = at::empty_like(order);
  slot_of_row.index_copy_(0, order, sequence * n_slots + rank);
  return {slot_of_row, n_slots};
}

at::Tensor attend_padded(const AttentionContext& context,
                         int64_t layer,
                         const Dispatch& rows,
                         const ExpertHeads& heads) {
  const auto keys = extend_keys(context, layer, heads.k, heads.v);
  const auto& tokens = rows.token_of_row;
  const int64_t batch = heads.k.size(0);
  const int64_t n_heads = heads.k.size(2);
  const int64_t head_dim = heads.k.size(3);
  auto q = heads.q.view({-1, n_heads, head_dim});
  if (context.rotary.cos.defined()) {
    const auto table_rows = tokens.remainder(context.rotary.cos.size(0));
    q = apply_rotary(q,
                     {context.rotary.cos.index_select(0, table_rows),
                      context.rotary.sin.index_select(0, table_rows)});
  }
  const auto padded = pad_by_sequence(at::floor_divide(tokens, heads.k.size(1)), batch);
  const auto slots = batch * padded.n_slots;
  // An unused slot queries position 0; its result is never read.
  const auto in_slots = [&](const at::Tensor& of_tokens) {
    return at::zeros({slots}, tokens.options())
        .index_copy(0, padded.slot_of_row, of_tokens.flatten().index_select(0, tokens))
        .view({batch, padded.n_slots});
  };
  const auto first_keys =
      context.first_keys.defined() ? in_slots(context.first_keys) : at::Tensor();
  const auto queries = at::zeros({slots, n_heads, head_dim}, q.options())
                           .index_copy(0, padded.slot_of_row, q)
                           .view({batch, padded.n_slots, n_heads, head_dim})
                           .transpose(1, 2);
  return attend(queries, keys, in_slots(context.positions), first_keys)
      .transpose(1, 2)
      .reshape({slots, n_heads * head_dim})
      .index_select(0, padded.slot_of_row);
}

at::Tensor attend_in_slots(const AttentionContext& context,
                           int64_t layer,
                           const ExpertPass& pass,
                           const ExpertHeads& heads) {
  const auto slots = list_slots(pass.rows, most_experts(pass.choice));
  // An unused slot has a query of zeros; its result is not read.
  const auto queries = combine_rows(heads.q, slots);  // [n_slots, D]
  const auto answers =
      self_attention(context,
                     layer,
                     queries.view({heads.k.size(0), heads.k.size(1), -1, heads.k.size(3)}),
                     heads.k,
                     heads.v,
                     HeadLayout::kExpertMajor);
  return dispatch_rows(answers.reshape(queries.sizes()), slots);
}

// every_pair: every token has every expert.
at::Tensor attend_packed(const AttentionContext& context,
                         int64_t layer,
                         const ExpertPass& pass,
                         const ExpertHeads& heads,
                         bool every_pair) {
  TORCH_CHECK(
      !context.first_keys.defined(),
      "MoABlock: expected one document per sequence, got several; packed weights take these "
      "one by one");
  const auto& k = heads.k;
  const int64_t batch = k.size(0);
  const int64_t seq = k.size(1);
  const int64_t n_heads = k.size(2);
  const int64_t head_dim = k.size(3);
  const auto& tables = context.rotary;
  const auto q = heads.q.view({-1, n_heads, head_dim});  // a row's heads
  // (expert, token, head) -> (token, expert, head)
  const auto by_token = [&] {
    return q.view({pass.experts.n_experts, batch * seq, n_heads, head_dim})
        .transpose(0, 1)
        .reshape({batch * seq, pass.experts.n_experts * n_heads, head_dim})
        .contiguous();  // with one head an expert, reshape copies nothing
  };
  const auto by_expert = [&](const at::Tensor& y) {
    return y.view({batch * seq, pass.experts.n_experts, n_heads, head_dim})
        .transpose(0, 1)
        .reshape(heads.q.sizes());
  };
  if (context.cache == nullptr && every_pair) {
    const auto queries = by_token().view({batch, seq, -1, head_dim});
    return by_expert(causal_attention(apply_rotary(queries, context.rotary),
                                      apply_rotary(k, context.rotary),
                                      heads.v,
                                      HeadLayout::kExpertMajor));
  }
  std::optional<KvCache> own;
  if (context.cache == nullptr) {
    own.emplace(KvShape{1, n_heads, head_dim, k.scalar_type()}, batch, seq).begin_pass(seq);
  }
  const auto rows = own ? own->rows(0) : context.cache->rows(layer);
  append_to_cache(rows, k, heads.v, tables);
  if (every_pair) {
    return by_expert(attend_stored(context, rows, by_token(), HeadLayout::kExpertMajor));
  }
  return cached_attention(rows, {.q = q, .token_of_row = pass.rows.token_of_row, .tables = tables})
      .view(heads.q.sizes());
}

at::Tensor attend_wide(const AttentionContext& context,
                       int64_t layer,
                       const ExpertPass& pass,
                       const ExpertHeads& heads) {
  const auto& [q, k, v] = heads;
  const int64_t head_dim = k.size(3);
  if (pass.role == ExpertRole::kDecoding) {
    // Heads of unselected experts are not attended.
    const auto weights = runs_sparse(pass) ? pass.choice.expert_weights.contiguous() : at::Tensor();
    return attend_decoding(context,
                           layer,
                           q.view({q.size(0), -1, head_dim}),
                           k.flatten(0, 1),
                           v.flatten(0, 1),
                           HeadLayout::kExpertMajor,
                           weights)
        .flatten(1);
  }
  // Heads are in (expert, head) order and head j of every expert reads key/value head j.
  return self_attention(context,
                        layer,
                        q.view({k.size(0), k.size(1), q.size(1) / head_dim, head_dim}),
                        k,
                        v,
                        HeadLayout::kExpertMajor)
      .view(q.sizes());
}

}  // namespace

at::Tensor attend_experts(const AttentionContext& context,
                          int64_t layer,
                          const ExpertPass& pass,
                          const ExpertHeads& heads) {
  const auto& policy = pass.policy;
  if (!pass.rows.token_of_row.defined()) return attend_wide(context, layer, pass, heads);
  if (pass.rows.ends.defined()) return attend_in_slots(context, layer, pass, heads);
  if (!pass.experts.is_packed()) return attend_padded(context, layer, pass.rows, heads);
  const bool every_pair =
      policy.selection == Selection::kAll || policy.execution == Execution::kDense;
  return attend_packed(context, layer, pass, heads, every_pair);
}

}  // namespace dsmoe
