#pragma once

#include <cmath>

#include "csrc_kernels/common/simd.h"

/// Softmax of rows that are shorter than a vector: sixteen rows at once, one per lane. A tile holds
/// element j of row r at [j * kTileRows + r]. For files that are compiled per instruction set.
namespace dsmoe {
inline namespace DSMOE_ISA {

constexpr int64_t kTileRows = 16;

inline int64_t min_of(int64_t a, int64_t b) { return a < b ? a : b; }

/// tile [n, kTileRows] from rows [n_rows, n]; lanes beyond n_rows become zero.
template <typename W>
void load_tile(const W* rows, int64_t n_rows, int64_t n, W* tile) {
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t r = 0; r < n_rows; ++r) tile[j * kTileRows + r] = rows[r * n + j];
    for (int64_t r = n_rows; r < kTileRows; ++r) tile[j * kTileRows + r] = 0;
  }
}

template <typename W>
void store_tile(const W* tile, int64_t n_rows, int64_t n, W* rows) {
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t r = 0; r < n_rows; ++r) rows[r * n + j] = tile[j * kTileRows + r];
  }
}

/// Replaces logits by probabilities; log_sum_exp [kTileRows] may be null.
template <typename W>
void softmax_tile(int64_t n, W* tile, W* log_sum_exp) {
  W highest[kTileRows];
  W sum[kTileRows] = {};
  for (int64_t r = 0; r < kTileRows; ++r) highest[r] = tile[r];
  for (int64_t j = 1; j < n; ++j) {
    const W* z = tile + j * kTileRows;
#pragma omp simd
    for (int64_t r = 0; r < kTileRows; ++r) highest[r] = z[r] > highest[r] ? z[r] : highest[r];
  }
  for (int64_t j = 0; j < n; ++j) {
    W* z = tile + j * kTileRows;
#pragma omp simd
    for (int64_t r = 0; r < kTileRows; ++r) {
      z[r] = exp_of(z[r] - highest[r]);
      sum[r] += z[r];
    }
  }
  for (int64_t j = 0; j < n; ++j) {
    W* z = tile + j * kTileRows;
#pragma omp simd
    for (int64_t r = 0; r < kTileRows; ++r) z[r] /= sum[r];
  }
  if (log_sum_exp == nullptr) return;
  for (int64_t r = 0; r < kTileRows; ++r) log_sum_exp[r] = highest[r] + std::log(sum[r]);
}

}  // namespace DSMOE_ISA
}  // namespace dsmoe
