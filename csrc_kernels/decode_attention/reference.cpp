#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ne.h>

#include <cmath>

#include "csrc_kernels/decode_attention/decode_attention.h"
#include "csrc_kernels/rotary/rotary.h"

namespace dsmoe {

at::Tensor decode_attention_ref(const DecodeCache& cache,
                                const at::Tensor& q,
                                HeadLayout layout,
                                const RotaryTables& tables,
                                const at::Tensor& expert_weights) {
  const int64_t batch = q.size(0);
  const int64_t n_kv_heads = cache.keys.size(1);
  const int64_t n_groups = q.size(1) / n_kv_heads;
  const bool by_expert = layout == HeadLayout::kExpertMajor;
  const auto wide = q.to(at::kDouble);
  const auto rotated =
      tables.cos.defined()
          ? rotary_ref(wide.contiguous(), tables.cos.to(at::kDouble), tables.sin.to(at::kDouble))
          : wide;
  // [batch, n_kv_heads, n_groups, head_dim]
  const auto heads = by_expert ? rotated.view({batch, n_groups, n_kv_heads, -1}).transpose(1, 2)
                               : rotated.view({batch, n_kv_heads, n_groups, -1});
  const auto scores = at::matmul(heads, cache.keys.to(at::kDouble).transpose(2, 3)) /
                      std::sqrt(static_cast<double>(q.size(2)));
  const auto numbers = at::arange(cache.keys.size(2), cache.positions.options());
  const auto hidden = numbers.gt(cache.positions.view({batch, 1, 1, 1}));
  const auto probs = scores.masked_fill(hidden, -INFINITY).softmax(-1);
  const auto y = at::matmul(probs, cache.values.to(at::kDouble).nan_to_num());
  auto result = (by_expert ? y.transpose(1, 2) : y).reshape(q.sizes());
  if (expert_weights.defined()) {
    const auto counts =
        at::ne(expert_weights, 0).unsqueeze(2).expand({batch, n_groups, n_kv_heads});
    result = result * counts.reshape({batch, q.size(1), 1});
  }
  return result.to(q.scalar_type());
}

}  // namespace dsmoe
