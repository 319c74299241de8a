#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/attention/causal_attention.h"
#include "model/experts/expert_backend.h"

namespace dsmoe {

/// Projections of one pass of a MoABlock, not rotated; D = heads_per_expert * head_dim.
struct ExpertHeads {
  at::Tensor q;  // [n_rows, D] of the pass's rows, or of every expert [n_tokens, n_experts * D]
  at::Tensor k;  // [batch, seq, heads_per_expert, head_dim]
  at::Tensor v;  // the same
};

/// Attention of the experts of a pass, between hidden and sum; stores keys and values in the cache
/// if there is one. Returns the shape of q.
///
/// Rows listed on the host are padded to the longest list of a sequence. Rows listed on a device
/// have one slot per token and expert that it can select: under a threshold without a cap these are
/// all experts, and attention costs as much as dense execution.
/// Source: arXiv:2404.05567, section 3.2, equations 7 and 8.
at::Tensor attend_experts(const AttentionContext& context,
                          int64_t layer,
                          const ExpertPass& pass,
                          const ExpertHeads& heads);

}  // namespace dsmoe
