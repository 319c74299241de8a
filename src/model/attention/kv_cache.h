#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

#include "csrc_kernels/cached_attention/cached_attention.h"

namespace dsmoe {

/// What a token leaves in a cache.
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

/// The part of one sequence in a pass: its next n_tokens.
struct PassSegment {
  int64_t sequence = 0;
  int64_t n_tokens = 1;
  /// Attention in blocks of queries rather than row by row: faster for many, other rounding. A
  /// prompt's parts but its last one are multiples of kPromptBlock for the bits of the whole.
  bool is_prompt = false;
};
constexpr int64_t kPromptBlock = kQueryBlock;

/// Keys and values of past tokens, for sequences of unlike lengths that come and go. A token's
/// entry does not depend on its routing: every token writes every key/value head.
class KvCache {
 public:
  /// `batch` sequences with room for `capacity` tokens each.
  explicit KvCache(const KvShape& shape, int64_t batch = 0, int64_t capacity = 0);

  /// One more sequence, the last.
  void add_sequence(int64_t capacity);
  /// Keeps the given sequences, in the given order.
  void keep(const std::vector<int64_t>& sequences);

  /// Begins a forward pass over tokens [1, sum of n_tokens], segment after segment.
  void begin_pass(std::vector<PassSegment> segments);
  /// The same over [batch, seq], the next seq tokens of every sequence.
  void begin_pass(int64_t seq);
  const std::vector<PassSegment>& segments() const { return segments_; }
  /// Where the pass's tokens stand in their sequences.
  const std::vector<int64_t>& positions() const { return places_.position; }
  /// Tokens of the longest sequence of the pass, those of the pass among them; 0 for an empty one.
  int64_t longest_after_pass() const;

  /// Stores keys and values [batch, n_kv_heads, seq, head_dim] of one layer and returns all stored
  /// ones, [batch, n_kv_heads, longest, head_dim], zero past a sequence's end. Throws c10::Error if
  /// a sequence would pass its capacity or the pass is made of segments.
  std::pair<at::Tensor, at::Tensor> append(int64_t layer, const at::Tensor& k, const at::Tensor& v);

  /// Ends a forward pass: sequence b has grown by counts[b] tokens; entries past them are
  /// overwritten by the next pass.
  void advance(const std::vector<int64_t>& counts);
  /// The same, every sequence by seq.
  void advance(int64_t seq);
  /// The same, every segment's sequence by its tokens.
  void advance_segments();
  /// A sequence forgets all but its first `length` tokens. Throws c10::Error if it has fewer.
  void rewind(int64_t sequence, int64_t length);

  /// One layer's keys and values of all sequences, [batch, n_kv_heads, capacity, head_dim]; of a
  /// cache off the CPU whose sequences were all made by its constructor.
  std::pair<at::Tensor, at::Tensor> batched_rows(int64_t layer) const;
  bool is_batched() const { return batch_.defined(); }
  /// Fills an empty batched cache: keys and values [batch, n_kv_heads, seq, head_dim] of one layer.
  /// Throws c10::Error if they pass its capacity.
  void fill(int64_t layer, const at::Tensor& k, const at::Tensor& v);
  /// No sequence has a token yet.
  bool is_empty() const;
  /// Of the memory that a batched cache has now: another number whenever it is made or moved, even
  /// where freed memory is used again.
  uint64_t storage_id() const { return storage_id_; }

  /// One layer's stored rows and the pass's places, for append_to_cache and cached_attention.
  KvRows rows(int64_t layer) const;
  at::ScalarType dtype() const { return shape_.dtype; }

  int64_t n_sequences() const { return static_cast<int64_t>(sequences_.size()); }
  int64_t length(int64_t sequence) const;
  /// Reserved for its sequences.
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
  // head_dim], so that a kernel finds them.
  at::Tensor batch_;
  uint64_t storage_id_ = 0;  // 0: not batched
  std::vector<PassSegment> segments_;
  TokenPlaces places_;
  bool is_rectangular_ = true;  // the pass has as many tokens of every sequence, in order
};

}  // namespace dsmoe
