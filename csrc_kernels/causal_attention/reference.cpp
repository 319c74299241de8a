#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>

#include <cmath>
#include <limits>

#include "csrc_kernels/causal_attention/causal_attention.h"

namespace dsmoe {

at::Tensor causal_attention_ref(const at::Tensor& q,
                                const at::Tensor& k,
                                const at::Tensor& v,
                                HeadLayout layout) {
  const int64_t group = q.size(2) / k.size(2);
  // [batch, seq, n_kv_heads, head_dim] -> [batch, n_heads, seq, head_dim]
  const auto per_query_head = [&](const at::Tensor& x) {
    return (layout == HeadLayout::kKvMajor ? x.repeat_interleave(group, 2)
                                           : x.repeat({1, 1, group, 1}))
        .transpose(1, 2);
  };
  const auto scores = at::matmul(q.transpose(1, 2), per_query_head(k).transpose(2, 3)) /
                      std::sqrt(static_cast<double>(q.size(3)));  // [batch, n_heads, seq, seq]
  const auto future = at::ones({q.size(1), q.size(1)}, q.options().dtype(at::kBool)).triu(1);
  const auto probs =
      at::softmax(scores.masked_fill(future, -std::numeric_limits<double>::infinity()), -1);
  return at::matmul(probs, per_query_head(v)).transpose(1, 2).contiguous();
}

}  // namespace dsmoe
