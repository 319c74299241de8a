#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "csrc_kernels/cached_attention/cached_attention.h"

namespace dsmoe {

/// Shape of the entry that a token stores in a cache.
struct KvShape {
  int64_t n_layers = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  at::ScalarType dtype = at::kFloat;
  at::Device device = at::kCPU;

  at::TensorOptions options() const { return at::TensorOptions(dtype).device(device); }
  int64_t bytes_per_token() const {
    return 2 * n_layers * n_kv_heads * head_dim * static_cast<int64_t>(at::elementSize(dtype));
  }
};

/// The next n_tokens of one sequence in a pass.
struct PassSegment {
  int64_t sequence = 0;
  int64_t n_tokens = 1;
  /// Attention in blocks of queries instead of row by row: faster for many tokens, rounds
  /// differently. Every part of a prompt but the last has a multiple of kPromptBlock tokens, so
  /// that the parts give the bits of the whole.
  bool is_prompt = false;
};
constexpr int64_t kPromptBlock = kQueryBlock;

/// Keys and values of past tokens. Sequences may differ in length, be added and be removed. An
/// entry does not depend on the token's routing: every token writes every key/value head.
class KvCache {
 public:
  /// Reserves `batch` sequences of `capacity` tokens each.
  explicit KvCache(const KvShape& shape, int64_t batch = 0, int64_t capacity = 0);

  /// Appends a sequence.
  void add_sequence(int64_t capacity);
  /// Keeps only the given sequences, in the given order.
  void keep(const std::vector<int64_t>& sequences);

  /// Begins a forward pass over tokens [1, sum of n_tokens], segment after segment.
  void begin_pass(std::vector<PassSegment> segments);
  /// Begins a forward pass over [batch, seq], the next seq tokens of every sequence.
  void begin_pass(int64_t seq);
  const std::vector<PassSegment>& segments() const { return segments_; }
  /// Position of each token of the pass in its sequence.
  const std::vector<int64_t>& positions() const { return places_.position; }
  /// Length of the longest sequence of the pass, its tokens of this pass included; 0 for an empty
  /// pass.
  int64_t longest_after_pass() const;

  /// Stores keys and values [batch, n_kv_heads, seq, head_dim] of one layer and returns all stored
  /// ones, [batch, n_kv_heads, longest, head_dim], zero past a sequence's end. Throws c10::Error if
  /// a sequence would exceed its capacity or the pass consists of segments.
  std::pair<at::Tensor, at::Tensor> append(int64_t layer, const at::Tensor& k, const at::Tensor& v);

  /// Ends a forward pass: adds counts[b] tokens to sequence b; the next pass overwrites the entries
  /// past them.
  void advance(const std::vector<int64_t>& counts);
  /// Ends a forward pass: adds seq tokens to every sequence.
  void advance(int64_t seq);
  /// Ends a forward pass: adds the tokens of every segment to its sequence.
  void advance_segments();
  /// Truncates a sequence to its first `length` tokens. Throws c10::Error if it has fewer.
  void rewind(int64_t sequence, int64_t length);

  /// Keys and values of one layer for all sequences, [batch, n_kv_heads, capacity, head_dim]. Only
  /// for a cache off the CPU that has exactly the sequences made by its constructor.
  std::pair<at::Tensor, at::Tensor> batched_rows(int64_t layer) const;
  bool is_batched() const { return batch_.defined(); }
  /// Fills one layer of an empty batched cache with keys and values [batch, n_kv_heads, seq,
  /// head_dim]. Throws c10::Error if they exceed its capacity.
  void fill(int64_t layer, const at::Tensor& k, const at::Tensor& v);
  /// True if no sequence has a token.
  bool is_empty() const;
  /// Identifies the memory of a batched cache: a new number each time it is allocated or moved,
  /// even if the address is reused.
  uint64_t storage_id() const { return storage_id_; }

  /// Stored rows of one layer and the places of the pass, for append_to_cache and cached_attention.
  KvRows rows(int64_t layer) const;
  at::ScalarType dtype() const { return shape_.dtype; }

  int64_t n_sequences() const { return static_cast<int64_t>(sequences_.size()); }
  int64_t length(int64_t sequence) const;
  /// Bytes reserved for all sequences.
  int64_t size_bytes() const;

 private:
  struct Sequence {
    std::vector<at::Tensor> keys;  // per layer [n_kv_heads, capacity, head_dim]
    std::vector<at::Tensor> values;
    int64_t capacity = 0;
    int64_t length = 0;
  };

  void set_batch(const at::Tensor& batch);

  KvShape shape_;
  std::vector<Sequence> sequences_;
  // Off the CPU all sequences are rows of one tensor, [n_layers, 2, batch, n_kv_heads, capacity,
  // head_dim], so that a kernel can address them.
  at::Tensor batch_;
  uint64_t storage_id_ = 0;  // 0: not batched
  std::vector<PassSegment> segments_;
  TokenPlaces places_;
  bool is_rectangular_ = true;  // the pass has as many tokens of every sequence, in order
};

}  // namespace dsmoe
