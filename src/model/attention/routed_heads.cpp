#include "model/attention/routed_heads.h"

#include <ATen/TensorOperators.h>

#include "csrc_kernels/dispatch/dispatch.h"
#include "csrc_kernels/grouped_linear/grouped_linear.h"
#include "csrc_kernels/weighted_activation/weighted_activation.h"
#include "model/moe/device_rows.h"

namespace dsmoe {
namespace {

// [max_rows, heads_per_expert * head_dim], each pair's queries, not turned
at::Tensor row_queries(const at::Tensor& x, const RoutedRows& rows, HeadProjections& heads) {
  const auto dtype = x.scalar_type();
  const auto q = grouped_linear_by_ends(
      dispatch_rows(x, rows), heads.q->weight_as(dtype), rows.ends, ExpertAxis::kRows);
  if (!heads.q->bias.defined()) return q;
  const auto bias = heads.q->bias.to(dtype).view({heads.n_experts, -1});
  return q + bias.index_select(0, rows.expert_of_row.clamp_min(0));
}

}  // namespace

bool runs_routed_attention(const at::Tensor& x,
                           const ExpertSelection& selection,
                           const HeadProjections& heads) {
  return lists_on_device(x, selection) &&
         takes_ends(x.scalar_type(), x.size(2), heads.heads_per_expert * heads.head_dim);
}

at::Tensor routed_attention(const at::Tensor& x,
                            const AttentionContext& context,
                            int64_t layer,
                            const ExpertSelection& selection,
                            HeadProjections heads) {
  const auto dtype = x.scalar_type();
  const auto rows = list_selected(selection);
  const auto slots = list_slots(rows, most_selected(selection));
  const auto split = [&](const at::Tensor& y) {
    return y.view({x.size(0), x.size(1), -1, heads.head_dim});
  };
  // An unused slot asks with zeros; its answer is not read.
  const auto queries = rows_to_slots(row_queries(x.flatten(0, 1).contiguous(), rows, heads), slots);
  const auto answers = self_attention(context,
                                      layer,
                                      split(queries),
                                      split(heads.k(x)),
                                      split(heads.v(x)),
                                      HeadLayout::kExpertMajor);  // [batch, seq, n_heads, head_dim]
  const auto weighted = weighted_activation(
      Activation::kIdentity,
      slots_to_rows(answers.reshape(queries.sizes()), slots),
      {},
      gather_weights(selection.expert_weights, rows).unsqueeze(1));  // [max_rows, d_keys]
  const auto y_rows =
      grouped_linear_by_ends(weighted, heads.o->weight_as(dtype), rows.ends, ExpertAxis::kColumns);
  const auto y = combine_rows(y_rows, rows).view(x.sizes());
  return heads.o->bias.defined() ? y + heads.o->bias.to(dtype) : y;
}

}  // namespace dsmoe
