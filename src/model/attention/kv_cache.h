#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "csrc_kernels/attention/cached_attention.h"

namespace dsmoe {

/// Keys and values of past tokens, for sequences of unlike lengths. A token's entry does not depend
/// on its routing: every token writes every key/value head.
class KvCache {
 public:
  KvCache(int64_t n_layers,
          int64_t batch,
          int64_t n_kv_heads,
          int64_t capacity,
          int64_t head_dim,
          at::ScalarType dtype);

  /// Stores keys and values [batch, n_kv_heads, seq, head_dim] of one layer at each sequence's own
  /// end and returns all stored ones, [batch, n_kv_heads, longest, head_dim]. Throws c10::Error if
  /// a sequence would pass the capacity.
  std::pair<at::Tensor, at::Tensor> append(int64_t layer, const at::Tensor& k, const at::Tensor& v);

  /// Positions of the next seq tokens of each sequence, [batch, seq] int64.
  at::Tensor next_positions(int64_t seq) const;

  /// Ends a forward pass: sequence b has grown by counts[b] tokens; entries past them are
  /// overwritten by the next append.
  void advance(const std::vector<int64_t>& counts);
  /// The same, all sequences by seq.
  void advance(int64_t seq);

  /// One layer's stored rows, for append_to_cache and cached_attention.
  KvRows rows(int64_t layer) const;
  at::ScalarType dtype() const { return keys_.at(0).scalar_type(); }
  /// True before the first pass.
  bool is_empty() const;

  const std::vector<int64_t>& lengths() const { return lengths_; }
  int64_t capacity() const { return capacity_; }
  /// Keeps the given sequences, in the given order.
  void keep(const std::vector<int64_t>& sequences);

 private:
  int64_t capacity_;
  std::vector<int64_t> lengths_;  // tokens of each sequence
  std::vector<at::Tensor> keys_;  // per layer [batch, n_kv_heads, capacity, head_dim]
  std::vector<at::Tensor> values_;
};

}  // namespace dsmoe
