#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "csrc_kernels/causal_attention/kernels.h"
#include "csrc_kernels/common/simd.h"

/// Layouts of the factors of a BlockProduct. For files that are compiled per instruction set.
namespace dsmoe {
inline namespace DSMOE_ISA {

// Two bfloat16 of a pair, or the bits of a float.
using Word = uint32_t __attribute__((may_alias));

/// True if a right factor holds its rows in pairs.
template <typename B>
constexpr bool kPairs = std::is_same_v<B, Bfloat16>;

/// Sizes of a matrix and of the larger one that pads it with zeros.
struct Padded {
  int64_t n_rows;
  int64_t n_rows_padded;
  int64_t n_columns;
  int64_t n_columns_padded;
};

// Rounds to nearest, ties to even. Unlike store, it requires that a NaN has no low bits, as those
// of arithmetic and of bfloat16 inputs.
inline uint32_t rounded_bits(float x) {
  const auto bits = __builtin_bit_cast(uint32_t, x);
  return bits + 0x7fffU + ((bits >> 16) & 1U);
}
inline void store_rounded(Bfloat16& to, float x) {
  to.bits = static_cast<uint16_t>(rounded_bits(x) >> 16);
}
inline void store_rounded(float& to, float x) { to = x; }
inline void store_rounded(double& to, double x) { to = x; }

/// Stores column i of two consecutive rows of a right factor with n columns.
inline void join_two_rows(Bfloat16* to, int64_t, int64_t i, Bfloat16 even, Bfloat16 odd) {
  reinterpret_cast<Word*>(to)[i] = even.bits | (static_cast<uint32_t>(odd.bits) << 16);
}
inline void join_two_rows(Bfloat16* to, int64_t, int64_t i, float even, float odd) {
  reinterpret_cast<Word*>(to)[i] = (rounded_bits(even) >> 16) | (rounded_bits(odd) & 0xffff0000U);
}
template <typename W>
inline void join_two_rows(W* to, int64_t n, int64_t i, W even, W odd) {
  to[i] = even;
  to[n + i] = odd;
}

// Copies bits: the compiler does not vectorise loops over structs.
inline void convert(Bfloat16& to, Bfloat16 x) { to.bits = x.bits; }
inline void convert(float& to, Bfloat16 x) { to = load(x); }
template <typename W>
inline void convert(W& to, W x) {
  to = x;
}

/// Copies rows into a dense padded matrix of another type.
template <typename T, typename B>
void copy_rows(const Padded& size, RowSpan<const T> from, B* to) {
  for (int64_t i = 0; i < size.n_rows; ++i) {
    const T* row = from[i];
    B* to_row = to + i * size.n_columns_padded;
#pragma omp simd
    for (int64_t d = 0; d < size.n_columns; ++d) {
      convert(to_row[d], row[d]);
    }
    for (int64_t d = size.n_columns; d < size.n_columns_padded; ++d) to_row[d] = B{};
  }
  std::fill(to + size.n_rows * size.n_columns_padded,
            to + size.n_rows_padded * size.n_columns_padded,
            B{});
}

/// Returns the rows themselves if type, size and alignment fit, else a copy in scratch.
template <typename T, typename B>
RowSpan<const B> dense_rows(const Padded& size, RowSpan<const T> from, B* scratch) {
  if constexpr (std::is_same_v<T, B>) {
    const bool is_whole =
        size.n_rows == size.n_rows_padded && size.n_columns == size.n_columns_padded;
    const bool is_aligned =
        (reinterpret_cast<uintptr_t>(from.data) | static_cast<uintptr_t>(from.stride) * sizeof(T)) %
            16 ==
        0;
    if (is_whole && is_aligned) return from;
  }
  copy_rows(size, from, scratch);
  return {scratch, size.n_columns_padded};
}

/// Stores rows of n_columns entries times factor.
template <typename W, typename T>
void store_rows(int64_t n_rows, int64_t n_columns, W factor, RowSpan<const W> from, RowSpan<T> to) {
  for (int64_t i = 0; i < n_rows; ++i) {
    const W* row = from[i];
    T* to_row = to[i];
#pragma omp simd
    for (int64_t d = 0; d < n_columns; ++d) store(to_row[d], row[d] * factor);
  }
}

template <typename W, typename T>
W dot_rows(int64_t n, const T* a, const T* b) {
  W sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t d = 0; d < n; ++d) sum += load(a[d]) * load(b[d]);
  return sum;
}

/// Multiplies each column of x [n_rows, n] by its factor.
template <typename W>
void scale_columns(int64_t n_rows, int64_t n, const W* factors, W* x) {
  for (int64_t r = 0; r < n_rows; ++r) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) x[r * n + i] *= factors[i];
  }
}

// Transposes four by four words of four bytes in registers.
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
// Transposes eight by eight: pairs of columns as words, then the halves of the words.
inline void transpose_tile(const Bfloat16* from, int64_t ld_from, Bfloat16* to, int64_t ld_to) {
  using Halves = uint16_t __attribute__((vector_size(16), aligned(2), may_alias));
  Halves low[4];
  Halves high[4];
  transpose_tile(reinterpret_cast<const Word*>(from), ld_from / 2, reinterpret_cast<Word*>(low), 4);
  transpose_tile(reinterpret_cast<const Word*>(from + 4 * ld_from),
                 ld_from / 2,
                 reinterpret_cast<Word*>(high),
                 4);
  for (int64_t pair = 0; pair < 4; ++pair) {
    const Halves a = low[pair];
    const Halves b = high[pair];
    *reinterpret_cast<Halves*>(to + 2 * pair * ld_to) =
        __builtin_shufflevector(a, b, 0, 2, 4, 6, 8, 10, 12, 14);
    *reinterpret_cast<Halves*>(to + (2 * pair + 1) * ld_to) =
        __builtin_shufflevector(a, b, 1, 3, 5, 7, 9, 11, 13, 15);
  }
}
inline void transpose(int64_t m,
                      int64_t n,
                      const Bfloat16* from,
                      int64_t ld_from,
                      Bfloat16* to,
                      int64_t ld_to) {
  for (int64_t i = 0; i < m; i += 8) {
    for (int64_t j = 0; j < n; j += 8) {
      transpose_tile(from + i * ld_from + j, ld_from, to + j * ld_to + i, ld_to);
    }
  }
}

/// Stores x [n_rows, n_columns] as right factor [n_columns, n_rows]; both are multiples of 8.
inline void pack_transposed(int64_t n_rows,
                            int64_t n_columns,
                            RowSpan<const Bfloat16> x,
                            Bfloat16* to) {
  // A transpose of words, each of which is a pair of columns.
  for (int64_t i = 0; i < n_rows; i += 4) {
    for (int64_t j = 0; j < n_columns; j += 8) {
      transpose_tile(reinterpret_cast<const Word*>(x[i] + j),
                     x.stride / 2,
                     reinterpret_cast<Word*>(to + j * n_rows + 2 * i),
                     n_rows);
    }
  }
}
template <typename W>
void pack_transposed(int64_t n_rows, int64_t n_columns, RowSpan<const W> x, W* to) {
  transpose(n_rows, n_columns, x.data, x.stride, to, n_rows);
}

/// Stores x as right factor [n_rows, n_columns].
template <typename B>
void pack_rows(int64_t n_rows, int64_t n_columns, RowSpan<const B> x, B* to) {
  for (int64_t i = 0; i < n_rows; i += 2) {
    const B* even = x[i];
    const B* odd = x[i + 1];
    B* to_rows = to + i * n_columns;
#pragma omp simd
    for (int64_t d = 0; d < n_columns; ++d) join_two_rows(to_rows, n_columns, d, even[d], odd[d]);
  }
}

}  // namespace DSMOE_ISA
}  // namespace dsmoe
