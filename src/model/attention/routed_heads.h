#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "model/attention/causal_attention.h"
#include "model/linear.h"
#include "model/moe/expert_selection.h"

namespace dsmoe {

/// What a MoABlock projects with; its header has the shapes.
struct HeadProjections {
  Linear q;
  Linear k;
  Linear v;
  Linear o;
  int64_t n_experts;
  int64_t heads_per_expert;
  int64_t head_dim;
};

/// Whether routed_attention takes this selection of x, [batch, seq, d_model].
bool runs_routed_attention(const at::Tensor& x,
                           const ExpertSelection& selection,
                           const HeadProjections& heads);

/// The selected attention experts of each token on a device that is not waited for.
///
/// Queries and outputs are projected for the selected pairs alone. In between every token has as
/// many slots as it can have selected experts, which makes attention that of a dense mixture of so
/// few. Under a threshold without a cap these are all experts: the projections are sparse then,
/// attention costs what dense execution costs.
///
/// x        [batch, seq, d_model]; returns the same shape
/// Gradients reach x, the weights of the selection and all projections.
/// Source: arXiv:2404.05567, section 3.2, equations 7 and 8.
at::Tensor routed_attention(const at::Tensor& x,
                            const AttentionContext& context,
                            int64_t layer,
                            const ExpertSelection& selection,
                            HeadProjections heads);

}  // namespace dsmoe
