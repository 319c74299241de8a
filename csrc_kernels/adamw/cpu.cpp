#include "csrc_kernels/adamw/kernels.h"

namespace dsmoe {
namespace {

void squared_gradients(const GradientPiece* pieces, int64_t n_pieces, double* sums) {
#pragma omp parallel for if (n_pieces > 4)
  for (int64_t i = 0; i < n_pieces; ++i) {
    const float* gradient = pieces[i].gradient;
    double sum = 0;
#pragma omp simd reduction(+ : sum)
    for (int64_t j = 0; j < pieces[i].n; ++j) {
      const double g = gradient[j];
      sum += g * g;
    }
    sums[i] = sum;
  }
}

void step(const AdamwPiece* pieces, int64_t n_pieces, const AdamwRates& rates) {
  const AdamwRates r = rates;
#pragma omp parallel for if (n_pieces > 4)
  for (int64_t i = 0; i < n_pieces; ++i) {
    const AdamwPiece piece = pieces[i];
#pragma omp simd
    for (int64_t j = 0; j < piece.n; ++j) {
      const float g = piece.gradient[j] * r.gradient_scale;
      const float m = r.beta1 * piece.exp_avg[j] + (1.0F - r.beta1) * g;
      const float v = r.beta2 * piece.exp_avg_sq[j] + (1.0F - r.beta2) * g * g;
      piece.exp_avg[j] = m;
      piece.exp_avg_sq[j] = v;
      const float root = __builtin_sqrtf(v) * piece.root_scale + r.eps;
      piece.parameter[j] = piece.parameter[j] * piece.kept - piece.step_size * m / root;
    }
  }
}

}  // namespace

template <>
AdamwKernels isa_kernels<CpuIsa::DSMOE_ISA>() {
  return {squared_gradients, step};
}

}  // namespace dsmoe
