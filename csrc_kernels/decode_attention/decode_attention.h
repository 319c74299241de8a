#pragma once

#include <ATen/core/Tensor.h>

#include "csrc_kernels/cached_attention/cached_attention.h"

namespace dsmoe {

/// Keys and values of a batch of sequences in one layer, and the position of each new token; all on
/// the device.
struct DecodeCache {
  at::Tensor keys;       // [batch, n_kv_heads, capacity, head_dim]
  at::Tensor values;     // the same shape
  at::Tensor positions;  // [batch] int64, each below capacity (not checked)
};

/// Stores the rotated keys and the values of the new tokens at their positions. No gradient.
///
/// k, v    [batch, n_kv_heads, head_dim] in the type of the cache, contiguous
/// tables  [batch, head_dim / 2] float32, row b for sequence b, or undefined
/// Throws c10::Error if shapes or types disagree.
void append_token(const DecodeCache& cache,
                  const at::Tensor& k,
                  const at::Tensor& v,
                  const RotaryTables& tables);

/// Softmax attention of the new token of each sequence over its keys 0 .. position, scale 1 /
/// sqrt(head_dim), arithmetic in float32. No gradient. Shapes do not depend on positions, so that a
/// CUDA graph can record it.
///
/// q               [batch, n_heads, head_dim] in the type of the cache, contiguous, not rotated
/// expert_weights  [batch, n_experts] float32, or undefined; under kExpertMajor head h belongs to
///                 expert h / n_kv_heads; heads of experts with weight 0 are skipped and return
///                 zeros
/// returns         like q
/// Throws c10::Error if shapes or types disagree.
at::Tensor decode_attention(const DecodeCache& cache,
                            const at::Tensor& q,
                            HeadLayout layout,
                            const RotaryTables& tables,
                            const at::Tensor& expert_weights = {});

/// True if decode_attention has kernels for a cache with these keys.
bool has_decode_attention_kernels(const at::Tensor& keys);

/// Reference implementation of decode_attention in ATen calls.
at::Tensor decode_attention_ref(const DecodeCache& cache,
                                const at::Tensor& q,
                                HeadLayout layout,
                                const RotaryTables& tables,
                                const at::Tensor& expert_weights = {});

}  // namespace dsmoe
