#include "csrc_kernels/residual_norm/kernels.h"

#include "csrc_kernels/common/simd.h"

namespace dsmoe {
namespace {

constexpr int64_t kSerialElements = 1 << 14;  // below, waking threads costs more than the work

template <typename W>
W root(W x) {
  if constexpr (sizeof(W) == sizeof(double)) {
    return __builtin_sqrt(x);
  } else {
    return __builtin_sqrtf(x);
  }
}

template <typename W>
W mean_of(const W* row, int64_t n) {
  W sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += row[i];
  return sum / static_cast<W>(n);
}

template <typename W>
W mean_square(const W* row, W mean, int64_t n) {
  W sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += (row[i] - mean) * (row[i] - mean);
  return sum / static_cast<W>(n);
}

// Computes and returns the row of the residual stream: x + y, or x itself.
template <typename T, typename W>
const W* residual_row(const ResidualNormRows<T, W>& rows, int64_t row) {
  const W* x = rows.x + row * rows.width;
  if (rows.y == nullptr) return x;
  const T* y = rows.y + row * rows.width;
  W* residual = rows.residual + row * rows.width;
#pragma omp simd
  for (int64_t i = 0; i < rows.width; ++i) residual[i] = x[i] + load(y[i]);
  return residual;
}

template <NormKind kKind, typename T, typename W>
void forward_row(const ResidualNormRows<T, W>& rows, int64_t row) {
  const W* x = residual_row(rows, row);
  const W mean = kKind == NormKind::kLayerNorm ? mean_of(x, rows.width) : W(0);
  const W scale = W(1) / root(mean_square(x, mean, rows.width) + rows.eps);
  rows.mean[row] = mean;
  rows.scale[row] = scale;
  T* normed = rows.normed + row * rows.width;
  if (rows.bias == nullptr) {
#pragma omp simd
    for (int64_t i = 0; i < rows.width; ++i) {
      store(normed[i], (x[i] - mean) * scale * rows.weight[i]);
    }
  } else {
#pragma omp simd
    for (int64_t i = 0; i < rows.width; ++i) {
      store(normed[i], (x[i] - mean) * scale * rows.weight[i] + rows.bias[i]);
    }
  }
}

template <NormKind kKind, typename T, typename W>
void backward_row(const ResidualNormRows<T, W>& rows,
                  const ResidualNormGradients<T, W>& gradients,
                  int64_t row,
                  W* weight_sum,
                  W* bias_sum) {
  const int64_t n = rows.width;
  const W* x = (rows.y == nullptr ? rows.x : rows.residual) + row * n;
  const T* grad = gradients.grad_normed + row * n;
  const W mean = rows.mean[row];
  const W scale = rows.scale[row];
  W sum = 0;        // of g = grad * weight
  W sum_along = 0;  // of g times the normalised row
#pragma omp simd reduction(+ : sum, sum_along)
  for (int64_t i = 0; i < n; ++i) {
    const W along = (x[i] - mean) * scale;
    const W g = load(grad[i]);
    weight_sum[i] += g * along;
    sum += g * rows.weight[i];
    sum_along += g * rows.weight[i] * along;
  }
  if (bias_sum != nullptr) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) bias_sum[i] += load(grad[i]);
  }
  const W mean_g = kKind == NormKind::kLayerNorm ? sum / static_cast<W>(n) : W(0);
  const W mean_along = sum_along / static_cast<W>(n);
  W* grad_x = gradients.grad_x + row * n;
  const W* passed =
      gradients.grad_residual == nullptr ? nullptr : gradients.grad_residual + row * n;
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) {
    const W along = (x[i] - mean) * scale;
    grad_x[i] = scale * (load(grad[i]) * rows.weight[i] - mean_g - along * mean_along);
  }
  if (passed != nullptr) {
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) grad_x[i] += passed[i];
  }
  if (gradients.grad_y != nullptr) {
    T* grad_y = gradients.grad_y + row * n;
#pragma omp simd
    for (int64_t i = 0; i < n; ++i) store(grad_y[i], grad_x[i]);
  }
}

template <NormKind kKind, typename T, typename W>
void forward(const ResidualNormRows<T, W>& rows) {
#pragma omp parallel for if (rows.n_rows * rows.width > kSerialElements)
  for (int64_t row = 0; row < rows.n_rows; ++row) forward_row<kKind>(rows, row);
}

template <NormKind kKind, typename T, typename W>
void backward(const ResidualNormRows<T, W>& rows, const ResidualNormGradients<T, W>& gradients) {
  const int64_t n_chunks = residual_norm_chunks(rows.n_rows);
#pragma omp parallel for if (rows.n_rows * rows.width > kSerialElements)
  for (int64_t chunk = 0; chunk < n_chunks; ++chunk) {
    W* weight_sum = gradients.partial_weight + chunk * rows.width;
    W* bias_sum =
        gradients.partial_bias == nullptr ? nullptr : gradients.partial_bias + chunk * rows.width;
    for (int64_t i = 0; i < rows.width; ++i) weight_sum[i] = 0;
    for (int64_t i = 0; bias_sum != nullptr && i < rows.width; ++i) bias_sum[i] = 0;
    const int64_t end = rows.n_rows * (chunk + 1) / n_chunks;
    for (int64_t row = rows.n_rows * chunk / n_chunks; row < end; ++row) {
      backward_row<kKind>(rows, gradients, row, weight_sum, bias_sum);
    }
  }
}

template <typename T, typename W>
void residual_norm(NormKind kind, const ResidualNormRows<T, W>& rows) {
  if (kind == NormKind::kRmsNorm) return forward<NormKind::kRmsNorm>(rows);
  return forward<NormKind::kLayerNorm>(rows);
}

template <typename T, typename W>
void residual_norm_backward(NormKind kind,
                            const ResidualNormRows<T, W>& rows,
                            const ResidualNormGradients<T, W>& gradients) {
  if (kind == NormKind::kRmsNorm) return backward<NormKind::kRmsNorm>(rows, gradients);
  return backward<NormKind::kLayerNorm>(rows, gradients);
}

}  // namespace

template <>
ResidualNormKernels<Bfloat16, float> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {residual_norm, residual_norm_backward};
}
template <>
ResidualNormKernels<float, float> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {residual_norm, residual_norm_backward};
}
template <>
ResidualNormKernels<double, double> isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {residual_norm, residual_norm_backward};
}

}  // namespace dsmoe
