#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "csrc_kernels/attention/causal_attention_kernels.h"
#include "csrc_kernels/common/simd.h"

/// Layouts of the factors of a BlockProduct. Included only by files that are compiled per
/// instruction set.
namespace dsmoe::DSMOE_ISA {

/// True if a right factor holds its rows in pairs.
template <typename B>
constexpr bool kPairs = std::is_same_v<B, Bfloat16>;

// Two bfloat16 neighbours of a pair, or the bits of a float.
using Word = uint32_t __attribute__((may_alias));

/// A matrix inside a larger one whose other entries are zero.
struct Padded {
  int64_t n_rows;
  int64_t n_rows_padded;
  int64_t n_columns;
  int64_t n_columns_padded;
};

// To nearest, ties to even. Unlike store, for NaNs without low bits only: those that arithmetic
// makes and those of bfloat16 inputs.
inline uint32_t rounded_bits(float x) {
  const auto bits = __builtin_bit_cast(uint32_t, x);
  return bits + 0x7fffU + ((bits >> 16) & 1U);
}
inline void store_rounded(Bfloat16& to, float x) {
  to.bits = static_cast<uint16_t>(rounded_bits(x) >> 16);
}
inline void store_rounded(float& to, float x) { to = x; }
inline void store_rounded(double& to, double x) { to = x; }

/// Column i of two neighbouring rows of a right factor with n columns.
inline void store_two_rows(Bfloat16* to, int64_t, int64_t i, float even, float odd) {
  const uint32_t pair = (rounded_bits(even) >> 16) | (rounded_bits(odd) & 0xffff0000U);
  reinterpret_cast<Word*>(to)[i] = pair;
}
template <typename W>
inline void store_two_rows(W* to, int64_t n, int64_t i, W even, W odd) {
  to[i] = even;
  to[n + i] = odd;
}

/// Copies rows into a dense padded matrix of another type.
template <typename T, typename B>
void copy_rows(const Padded& size, const T* from, int64_t row_stride, B* to) {
  for (int64_t i = 0; i < size.n_rows; ++i) {
    const T* row = from + i * row_stride;
    B* to_row = to + i * size.n_columns_padded;
    if constexpr (std::is_same_v<T, B>) {
      std::copy_n(row, size.n_columns, to_row);
    } else {
#pragma omp simd
      for (int64_t d = 0; d < size.n_columns; ++d) store(to_row[d], load(row[d]));
    }
    std::fill(to_row + size.n_columns, to_row + size.n_columns_padded, B{});
  }
  std::fill(to + size.n_rows * size.n_columns_padded,
            to + size.n_rows_padded * size.n_columns_padded,
            B{});
}

/// Rows [n_rows, n_columns] of a dense matrix with row length ld_from, to strided rows.
template <typename W, typename T>
void store_rows(int64_t n_rows,
                int64_t n_columns,
                const W* from,
                int64_t ld_from,
                T* to,
                int64_t row_stride) {
  for (int64_t i = 0; i < n_rows; ++i) {
    const W* row = from + i * ld_from;
    T* to_row = to + i * row_stride;
#pragma omp simd
    for (int64_t d = 0; d < n_columns; ++d) store(to_row[d], row[d]);
  }
}

template <typename W, typename T>
W dot_rows(int64_t n, const T* a, const T* b) {
  W sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < n; ++d) sum += load(a[d]) * load(b[d]);
  return sum;
}

/// x [n_rows, n] times one factor a column.
template <typename W>
void scale_columns(int64_t n_rows, int64_t n, const W* factors, W* x) {
  for (int64_t r = 0; r < n_rows; ++r) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) x[r * n + i] *= factors[i];
  }
}

// Four by four words of four bytes, through registers.
inline void transpose_tile(const Word* from, int64_t ld_from, Word* to, int64_t ld_to) {
  using Words = uint32_t __attribute__((vector_size(16), aligned(4), may_alias));
  const auto row = [&](int64_t i) { return *reinterpret_cast<const Words*>(from + i * ld_from); };
  const Words a = row(0);
  const Words b = row(1);
  const Words c = row(2);
  const Words d = row(3);
  const Words ab_low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
  const Words ab_high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
  const Words cd_low = __builtin_shufflevector(c, d, 0, 4, 1, 5);
  const Words cd_high = __builtin_shufflevector(c, d, 2, 6, 3, 7);
  const auto put = [&](int64_t i, Words x) { *reinterpret_cast<Words*>(to + i * ld_to) = x; };
  put(0, __builtin_shufflevector(ab_low, cd_low, 0, 1, 4, 5));
  put(1, __builtin_shufflevector(ab_low, cd_low, 2, 3, 6, 7));
  put(2, __builtin_shufflevector(ab_high, cd_high, 0, 1, 4, 5));
  put(3, __builtin_shufflevector(ab_high, cd_high, 2, 3, 6, 7));
}

/// to [n, m] = from [m, n] transposed; both sizes are multiples of 8, ld_ in elements.
inline void transpose(int64_t m,
                      int64_t n,
                      const float* from,
                      int64_t ld_from,
                      float* to,
                      int64_t ld_to) {
  for (int64_t i = 0; i < m; i += 4) {
    for (int64_t j = 0; j < n; j += 4) {
      transpose_tile(reinterpret_cast<const Word*>(from + i * ld_from + j),
                     ld_from,
                     reinterpret_cast<Word*>(to + j * ld_to + i),
                     ld_to);
    }
  }
}
inline void transpose(int64_t m,
                      int64_t n,
                      const double* from,
                      int64_t ld_from,
                      double* to,
                      int64_t ld_to) {
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) to[j * ld_to + i] = from[i * ld_from + j];
  }
}
inline void transpose(int64_t m,
                      int64_t n,
                      const Bfloat16* from,
                      int64_t ld_from,
                      Bfloat16* to,
                      int64_t ld_to) {
  // Eight rows: pairs of columns as words, then the words' halves apart.
  for (int64_t i = 0; i < m; i += 8) {
    for (int64_t j = 0; j < n; j += 8) {
      Word words[4][8];
      for (int64_t half = 0; half < 2; ++half) {
        transpose_tile(reinterpret_cast<const Word*>(from + (i + 4 * half) * ld_from + j),
                       ld_from / 2,
                       &words[0][4 * half],
                       8);
      }
      for (int64_t pair = 0; pair < 4; ++pair) {
        Bfloat16* even = to + (j + 2 * pair) * ld_to + i;
        Bfloat16* odd = even + ld_to;
        for (int64_t r = 0; r < 8; ++r) {
          even[r].bits = static_cast<uint16_t>(words[pair][r]);
          odd[r].bits = static_cast<uint16_t>(words[pair][r] >> 16);
        }
      }
    }
  }
}

/// Right factor [n_columns, n_rows] of x [n_rows, n_columns]; both are multiples of 8.
template <typename B>
void pack_transposed(int64_t n_rows, int64_t n_columns, const B* x, B* to) {
  if constexpr (kPairs<B>) {
    const int64_t n_words = n_columns / 2;
    for (int64_t i = 0; i < n_rows; i += 4) {
      for (int64_t j = 0; j < n_words; j += 4) {
        transpose_tile(reinterpret_cast<const Word*>(x) + i * n_words + j,
                       n_words,
                       reinterpret_cast<Word*>(to) + j * n_rows + i,
                       n_rows);
      }
    }
  } else {
    transpose(n_rows, n_columns, x, n_columns, to, n_rows);
  }
}

/// Right factor [n_rows, n_columns] of x itself.
template <typename B>
void pack_rows(int64_t n_rows, int64_t n_columns, const B* x, B* to) {
  if constexpr (kPairs<B>) {
    for (int64_t i = 0; i < n_rows; i += 2) {
      const B* even = x + i * n_columns;
      const B* odd = even + n_columns;
      auto* pairs = reinterpret_cast<Word*>(to + i * n_columns);
#pragma omp simd
      for (int64_t d = 0; d < n_columns; ++d) {
        pairs[d] = even[d].bits | (static_cast<uint32_t>(odd[d].bits) << 16);
      }
    }
  } else {
    std::copy_n(x, n_rows * n_columns, to);
  }
}

}  // namespace dsmoe::DSMOE_ISA
