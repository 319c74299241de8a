#include <ATen/TensorOperators.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/stack.h>

#include <cmath>

#include "csrc_kernels/cached_attention/cached_attention.h"
#include "csrc_kernels/rotary/rotary.h"

namespace dsmoe {

at::Tensor cached_attention_ref(const KvRows& cache, const QueryRows& queries) {
  std::vector<at::Tensor> rows;
  const int64_t n_kv_heads = cache.keys.at(0).size(0);
  const int64_t group = queries.q.size(1) / n_kv_heads;
  for (int64_t row = 0; row < queries.q.size(0); ++row) {
    const auto& tokens = queries.token_of_row;
    const auto token = tokens.defined() ? tokens[row].item<int64_t>() : row;
    const auto sequence =
        static_cast<size_t>(cache.places->sequence.at(static_cast<size_t>(token)));
    const auto n_keys = cache.places->position.at(static_cast<size_t>(token)) + 1;
    const auto keys = cache.keys.at(sequence).narrow(1, 0, n_keys).to(at::kDouble);
    const auto values = cache.values.at(sequence).narrow(1, 0, n_keys).to(at::kDouble);
    auto q = queries.q.narrow(0, row, 1).to(at::kDouble);  // [1, n_heads, head_dim]
    if (queries.tables.cos.defined()) {
      const auto at = token % queries.tables.cos.size(0);
      q = rotary_ref(q,
                     queries.tables.cos.narrow(0, at, 1).to(at::kDouble),
                     queries.tables.sin.narrow(0, at, 1).to(at::kDouble));
    }
    const bool kv_major = queries.layout == HeadLayout::kKvMajor;
    const auto heads = kv_major ? q.view({n_kv_heads, group, -1})
                                : q.view({group, n_kv_heads, -1}).transpose(0, 1);
    const auto scale = 1.0 / std::sqrt(static_cast<double>(q.size(2)));
    const auto y =
        at::matmul(at::softmax(at::matmul(heads, keys.transpose(1, 2)) * scale, -1), values);
    rows.push_back((kv_major ? y : y.transpose(0, 1)).reshape(queries.q.sizes().slice(1)));
  }
  return at::stack(rows).to(queries.q.scalar_type());
}

}  // namespace dsmoe
