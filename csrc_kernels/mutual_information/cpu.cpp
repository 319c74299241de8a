#include "csrc_kernels/mutual_information/kernels.h"

#include "csrc_kernels/common/softmax_tile.h"

namespace dsmoe {
namespace {

constexpr int64_t kSerialElements = 1 << 13;  // below, waking threads costs more than the work

template <typename W>
struct TileSums {
  W log_sum_exp[kTileRows];
  W plogp[kTileRows];  // sum of p log p
};

// Writes the softmax of a tile of logits to probs.
template <typename W>
TileSums<W> softmax_sums(int64_t n, const W* logits, W* probs) {
  TileSums<W> sums = {};
  for (int64_t i = 0; i < n * kTileRows; ++i) probs[i] = logits[i];
  softmax_tile(n, probs, sums.log_sum_exp);
  for (int64_t j = 0; j < n; ++j) {
#pragma omp simd
    for (int64_t r = 0; r < kTileRows; ++r) {
      sums.plogp[r] += probs[j * kTileRows + r] * logits[j * kTileRows + r];
    }
  }
  for (int64_t r = 0; r < kTileRows; ++r) sums.plogp[r] -= sums.log_sum_exp[r];
  return sums;
}

bool counts(const bool* counted, int64_t row) { return counted == nullptr || counted[row]; }

// Adds the counted rows of one tile to sum [n + 1]; scratch [2, n, kTileRows].
template <typename W>
void add_tile(const RouterRows<W>& rows, int64_t begin, int64_t n_rows, W* scratch, double* sum) {
  const int64_t n = rows.n_experts;
  W* probs = scratch + n * kTileRows;
  load_tile(rows.logits + begin * n, n_rows, n, scratch);
  const auto sums = softmax_sums(n, scratch, probs);
  double counted[kTileRows] = {};
  for (int64_t r = 0; r < n_rows; ++r) counted[r] = counts(rows.counted, begin + r) ? 1 : 0;
  for (int64_t j = 0; j < n; ++j) {
    double total = 0;
#pragma omp simd reduction(+ : total)
    for (int64_t r = 0; r < kTileRows; ++r) {
      total += counted[r] * static_cast<double>(probs[j * kTileRows + r]);
    }
    sum[j] += total;
  }
  for (int64_t r = 0; r < n_rows; ++r) sum[n] += counted[r] * static_cast<double>(sums.plogp[r]);
}

// The gradient of one tile's logits; scratch [2, n, kTileRows].
template <typename W>
void backward_tile(const RouterRows<W>& rows,
                   int64_t begin,
                   int64_t n_rows,
                   const W* log_mean,
                   W factor,
                   W* scratch,
                   W* grad_logits) {
  const int64_t n = rows.n_experts;
  W* probs = scratch + n * kTileRows;
  load_tile(rows.logits + begin * n, n_rows, n, scratch);
  const auto sums = softmax_sums(n, scratch, probs);
  W shift[kTileRows];  // log sum exp + KL(p || mean)
  for (int64_t r = 0; r < kTileRows; ++r) shift[r] = sums.log_sum_exp[r] + sums.plogp[r];
  for (int64_t j = 0; j < n; ++j) {
#pragma omp simd
    for (int64_t r = 0; r < kTileRows; ++r) shift[r] -= probs[j * kTileRows + r] * log_mean[j];
  }
  W weight[kTileRows] = {};
  for (int64_t r = 0; r < n_rows; ++r) weight[r] = counts(rows.counted, begin + r) ? factor : W(0);
  for (int64_t j = 0; j < n; ++j) {
    W* p = probs + j * kTileRows;
    const W* z = scratch + j * kTileRows;
#pragma omp simd
    for (int64_t r = 0; r < kTileRows; ++r) {
      p[r] *= weight[r] * (log_mean[j] - z[r] + shift[r]);
    }
  }
  store_tile(probs, n_rows, n, grad_logits + begin * n);
}

template <typename W>
void mutual_information_sums(const RouterRows<W>& rows, double* sums) {
  const int64_t n = rows.n_experts;
  const int64_t n_chunks = mutual_information_chunks(rows.n_rows);
#pragma omp parallel for if (rows.n_rows * n > kSerialElements)
  for (int64_t chunk = 0; chunk < n_chunks; ++chunk) {
    double* sum = sums + chunk * (n + 1);
    for (int64_t j = 0; j <= n; ++j) sum[j] = 0;
    auto* scratch = new W[static_cast<uint64_t>(2 * n * kTileRows)];
    const int64_t end = rows.n_rows * (chunk + 1) / n_chunks;
    for (int64_t row = rows.n_rows * chunk / n_chunks; row < end; row += kTileRows) {
      add_tile(rows, row, min_of(kTileRows, end - row), scratch, sum);
    }
    delete[] scratch;
  }
}

template <typename W>
void mutual_information_backward(const RouterRows<W>& rows,
                                 const W* log_mean,
                                 const W* factor,
                                 W* grad_logits) {
  const int64_t n = rows.n_experts;
#pragma omp parallel if (rows.n_rows * n > kSerialElements)
  {
    auto* scratch = new W[static_cast<uint64_t>(2 * n * kTileRows)];
#pragma omp for
    for (int64_t row = 0; row < rows.n_rows; row += kTileRows) {
      const int64_t n_rows = min_of(kTileRows, rows.n_rows - row);
      backward_tile(rows, row, n_rows, log_mean, *factor, scratch, grad_logits);
    }
    delete[] scratch;
  }
}

}  // namespace

template <>
MutualInformationKernels<float> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {mutual_information_sums, mutual_information_backward};
}
template <>
MutualInformationKernels<double> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {mutual_information_sums, mutual_information_backward};
}

}  // namespace dsmoe
