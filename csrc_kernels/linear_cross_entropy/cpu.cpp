#include "csrc_kernels/linear_cross_entropy/kernels.h"

#include <cmath>

#include "csrc_kernels/common/simd.h"

namespace dsmoe {
namespace {

constexpr int64_t kSerialElements = 1 << 14;  // below, waking threads costs more than the work

template <typename T>
double cross_entropy_row(T* logits, int64_t n, int64_t target, double grad_scale) {
  using W = Wide<T>;
  W highest = load(logits[0]);
#pragma omp simd reduction(max : highest)
  for (int64_t i = 0; i < n; ++i) highest = load(logits[i]) > highest ? load(logits[i]) : highest;
  W sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += exp_of(load(logits[i]) - highest);
  const double log_sum_exp = static_cast<double>(highest) + std::log(static_cast<double>(sum));
  const double loss = log_sum_exp - static_cast<double>(load(logits[target]));
  if (grad_scale == 0.0) return loss;
  const W at_target = load(logits[target]);
  const W factor = static_cast<W>(grad_scale) / sum;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) store(logits[i], exp_of(load(logits[i]) - highest) * factor);
  store(logits[target], (exp_of(at_target - highest) / sum - W(1)) * static_cast<W>(grad_scale));
  return loss;
}

template <typename T>
void cross_entropy(const CrossEntropyRows<T>& rows, double grad_scale, double* losses) {
  const int64_t n = rows.vocab_size;
#pragma omp parallel for if (rows.n_rows * n > kSerialElements)
  for (int64_t row = 0; row < rows.n_rows; ++row) {
    losses[row] = cross_entropy_row(rows.logits + row * n, n, rows.targets[row], grad_scale);
  }
}

}  // namespace

template <>
CrossEntropyKernels<Bfloat16> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {cross_entropy};
}
template <>
CrossEntropyKernels<float> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {cross_entropy};
}
template <>
CrossEntropyKernels<double> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {cross_entropy};
}

}  // namespace dsmoe
