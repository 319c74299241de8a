#include "csrc_kernels/loss/mutual_information_kernels.h"

#include <cmath>

#include "csrc_kernels/common/simd.h"

namespace dsmoe::DSMOE_ISA {
namespace {

constexpr int64_t kSerialElements = 1 << 13;  // below, waking threads costs more than the work

template <typename W>
struct RowSums {
  W log_sum_exp;
  W plogp;  // sum of p log p
};

// Fills probs with the softmax of z.
template <typename W>
RowSums<W> softmax_row(const W* z, int64_t n, W* probs) {
  W highest = z[0];
#pragma omp simd reduction(max : highest)
  for (int64_t j = 0; j < n; ++j) highest = z[j] > highest ? z[j] : highest;
  W sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t j = 0; j < n; ++j) {
    probs[j] = exp_of(z[j] - highest);
    sum += probs[j];
  }
  const W log_sum_exp = highest + std::log(sum);
  W mean_logit = 0;
#pragma omp simd reduction(+ : mean_logit)
  for (int64_t j = 0; j < n; ++j) {
    probs[j] /= sum;
    mean_logit += probs[j] * z[j];
  }
  return {log_sum_exp, mean_logit - log_sum_exp};
}

}  // namespace

template <typename W>
void mutual_information_sums(const RouterRows<W>& rows, double* sums) {
  const int64_t n = rows.n_experts;
  const int64_t n_chunks = mutual_information_chunks(rows.n_rows);
#pragma omp parallel for if (rows.n_rows * n > kSerialElements)
  for (int64_t chunk = 0; chunk < n_chunks; ++chunk) {
    double* sum = sums + chunk * (n + 1);
    for (int64_t j = 0; j <= n; ++j) sum[j] = 0;
    auto* probs = new W[static_cast<uint64_t>(n)];
    const int64_t end = rows.n_rows * (chunk + 1) / n_chunks;
    for (int64_t row = rows.n_rows * chunk / n_chunks; row < end; ++row) {
      if (rows.counted != nullptr && !rows.counted[row]) continue;
      sum[n] += static_cast<double>(softmax_row(rows.logits + row * n, n, probs).plogp);
      for (int64_t j = 0; j < n; ++j) sum[j] += static_cast<double>(probs[j]);
    }
    delete[] probs;
  }
}

template <typename W>
void mutual_information_backward(const RouterRows<W>& rows,
                                 const W* log_mean,
                                 W factor,
                                 W* grad_logits) {
  const int64_t n = rows.n_experts;
#pragma omp parallel for if (rows.n_rows * n > kSerialElements)
  for (int64_t row = 0; row < rows.n_rows; ++row) {
    const W* z = rows.logits + row * n;
    W* grad = grad_logits + row * n;
    if (rows.counted != nullptr && !rows.counted[row]) {
      for (int64_t j = 0; j < n; ++j) grad[j] = 0;
      continue;
    }
    const auto sums = softmax_row(z, n, grad);
    W cross = 0;  // sum of p log mean
#pragma omp simd reduction(+ : cross)
    for (int64_t j = 0; j < n; ++j) cross += grad[j] * log_mean[j];
    const W divergence = sums.plogp - cross;
#pragma omp simd
    for (int64_t j = 0; j < n; ++j) {
      grad[j] *= factor * (log_mean[j] - (z[j] - sums.log_sum_exp) + divergence);
    }
  }
}

#define DSMOE_INSTANTIATE(W)                                            \
  template void mutual_information_sums(const RouterRows<W>&, double*); \
  template void mutual_information_backward(const RouterRows<W>&, const W*, W, W*);
DSMOE_INSTANTIATE(float)
DSMOE_INSTANTIATE(double)
#undef DSMOE_INSTANTIATE

}  // namespace dsmoe::DSMOE_ISA
