#pragma once

#include <ATen/core/Tensor.h>

#include "csrc_kernels/block_product/block_product.h"
#include "csrc_kernels/causal_attention/kernels.h"

namespace dsmoe {

/// Assignment of query heads to key/value heads.
enum class HeadLayout {
  /// Head h uses key/value head h / (n_heads / n_kv_heads): dense grouped-query attention.
  kKvMajor,
  /// Head h uses key/value head h % n_kv_heads: the (expert, head) order of MoABlock.
  kExpertMajor,
};

/// Softmax attention in which query i sees keys 0 .. i, with scale 1 / sqrt(head_dim).
///
/// q        [batch, seq, n_heads, head_dim]
/// k, v     [batch, seq, n_kv_heads, head_dim], n_kv_heads divides n_heads
/// returns  [batch, seq, n_heads, head_dim], contiguous, in the type of q
/// All are float32, bfloat16 (scores, softmax and sums in float32) or float64 (a plain loop, for
/// tests). The last dimension is contiguous; other strides are free. Gradients reach q, k and v.
/// They need the inputs, the output and one float per query and head, nothing of size seq * seq.
/// The result does not depend on the number of threads. Tests of older CPUs set `products`.
/// Throws c10::Error if shapes, types or strides disagree.
at::Tensor causal_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            HeadLayout layout,
                            BlockProducts products = fastest_block_products());

/// Causal attention of a part of a sequence over the keys of the sequence so far: query i is token
/// first_query + i and sees keys 0 .. first_query + i. No gradient.
///
/// q        [n, n_heads, head_dim]
/// k, v     [n_kv_heads, first_query + n, head_dim]
/// returns  [n, n_heads, head_dim], contiguous
/// Parts that begin at multiples of kQueryBlock have the bits of the whole sequence.
at::Tensor continued_attention(const at::Tensor& q,
                               const at::Tensor& k,
                               const at::Tensor& v,
                               HeadLayout layout);

/// Reference implementation in differentiable ATen calls, a masked softmax.
at::Tensor causal_attention_ref(const at::Tensor& q,
                                const at::Tensor& k,
                                const at::Tensor& v,
                                HeadLayout layout);

}  // namespace dsmoe
