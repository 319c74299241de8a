#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "csrc_kernels/causal_attention/block_packing.h"
#include "csrc_kernels/causal_attention/kernels.h"

/// Code that the forward and the backward pass of causal attention share. S seq, D head_dim, padded
/// to whole blocks; Q queries of a block, C keys of a chunk. Scores are stored transposed, [C, Q]:
/// the softmax runs down columns, one per SIMD lane, and the probabilities are both the left factor
/// of dV and the right factor of y.
namespace dsmoe {
inline namespace DSMOE_ISA {

constexpr int64_t kKeys = 256;

inline int64_t round_up(int64_t n, int64_t multiple) {
  return (n + multiple - 1) / multiple * multiple;
}

/// Sizes after padding; few distinct ones, since oneDNN compiles a product for each.
struct Blocks {
  int64_t n_queries;  ///< of a block; a short sequence is one smaller block
  int64_t seq;
  int64_t head_dim;

  explicit Blocks(const AttentionShape& shape)
      : n_queries(std::min(kQueryBlock, round_up(shape.seq, 16))),
        seq(round_up(shape.seq, n_queries)),
        head_dim(round_up(shape.head_dim, 8)) {}
};

/// Divides one buffer into pieces aligned to 64 bytes; without a buffer it only counts bytes.
class Carver {
 public:
  explicit Carver(void* buffer) : begin_(reinterpret_cast<uintptr_t>(buffer)), at_(begin_) {}
  template <typename T>
  T* take(int64_t n) {
    at_ = (at_ + 63) / 64 * 64;
    auto* piece = reinterpret_cast<T*>(at_);
    at_ += static_cast<uintptr_t>(n) * sizeof(T);
    return piece;
  }
  /// Bytes that suffice for a buffer at any address.
  int64_t n_bytes() const { return static_cast<int64_t>(at_ - begin_) + 64; }

 private:
  uintptr_t begin_;
  uintptr_t at_;
};

/// Sets the scores of keys after a query, [n, Q], to minus infinity.
template <typename W>
void hide_future_keys(int64_t first_query,
                      int64_t first_key,
                      int64_t n,
                      int64_t n_queries,
                      W* scores) {
  for (int64_t key = std::max<int64_t>(first_query - first_key, 0); key < n; ++key) {
    const int64_t n_hidden = first_key + key - first_query;
    std::fill_n(scores + key * n_queries, n_hidden, -std::numeric_limits<W>::infinity());
  }
}

/// 2^x within 1e-7, for x up to 127; exactly zero for x below -115, so that hidden keys add
/// nothing.
inline float probability(float x) {
  // Adding 1.5 * 2^23 leaves the nearest integer in the low bits; a minimax polynomial covers the
  // fraction.
  constexpr float kRound = 12582912.0F;
  const float shifted = x + kRound;
  const float r = x - (shifted - kRound);
  float p = 1.3276471979e-3F;
  p = p * r + 9.6755413342e-3F;
  p = p * r + 5.5507132735e-2F;
  p = p * r + 2.4022119724e-1F;
  p = p * r + 6.9314696706e-1F;
  p = p * r + 1.0F;
  const uint32_t bits =
      __builtin_bit_cast(uint32_t, p) + (__builtin_bit_cast(uint32_t, shifted) << 23);
  return x < -115.0F ? 0.0F : __builtin_bit_cast(float, bits);
}
inline double probability(double x) { return __builtin_exp2(x); }

/// 1 / sqrt(head_dim). A score times this and log2(e) is an exponent of two.
template <typename W>
W score_scale(int64_t head_dim) {
  return W(1) / std::sqrt(static_cast<W>(head_dim));
}
template <typename W>
constexpr W kLog2E = W(1.4426950408889634074);

}  // namespace DSMOE_ISA
}  // namespace dsmoe
