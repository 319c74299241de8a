#pragma once

#include <ATen/core/Tensor.h>

#include "csrc_kernels/block_product/block_product.h"
#include "csrc_kernels/causal_attention/kernels.h"

namespace dsmoe {

/// Which key/value head a query head uses.
enum class HeadLayout {
  kKvMajor,      ///< head h uses key/value head h / (n_heads / n_kv_heads): dense grouped-query
                 ///< attention
  kExpertMajor,  ///< head h uses key/value head h % n_kv_heads: the (expert, head) order of
                 ///< MoABlock
};

/// Softmax attention in which query i sees keys 0 .. i, with scale 1 / sqrt(head_dim).
///
/// q        [batch, seq, n_heads, head_dim]
/// k, v     [batch, seq, n_kv_heads, head_dim], n_kv_heads divides n_heads
/// returns  [batch, seq, n_heads, head_dim], contiguous, of q's type
/// float32, bfloat16 (scores, softmax and sums in float32) or float64 (a plain loop, for tests),
/// one type for all; the last dimension contiguous, other strides free. Gradients reach q, k and v;
/// kept for them are the inputs, the output and one float a query and head, nothing of size seq *
/// seq. The result does not depend on the number of threads. `products` is for tests of lesser
/// CPUs. Throws c10::Error if shapes, types or strides disagree.
at::Tensor causal_attention(const at::Tensor& q,
                            const at::Tensor& k,
                            const at::Tensor& v,
                            HeadLayout layout,
                            BlockProducts products = fastest_block_products());

/// The same for a part of a sequence whose earlier keys are known: query i is token first_query + i
/// and sees keys 0 .. first_query + i. No gradient.
///
/// q        [n, n_heads, head_dim]
/// k, v     [n_kv_heads, first_query + n, head_dim]
/// returns  [n, n_heads, head_dim], contiguous
/// Parts that begin at multiples of kQueryBlock give the bits of the whole.
at::Tensor continued_attention(const at::Tensor& q,
                               const at::Tensor& k,
                               const at::Tensor& v,
                               HeadLayout layout);

/// Reference implementation in differentiable ATen calls: masked softmax.
at::Tensor causal_attention_ref(const at::Tensor& q,
                                const at::Tensor& k,
                                const at::Tensor& v,
                                HeadLayout layout);

}  // namespace dsmoe
