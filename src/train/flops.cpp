#include "train/flops.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/ones.h>

#include <algorithm>
#include <chrono>

#include "model/parameter_count.h"

namespace dsmoe {

double train_flops_per_token(const Transformer& model, int64_t seq_len) {
  const auto& config = model->config();
  const auto& attention = config.attention;
  const int64_t n_heads = attention.kind == AttentionKind::kMoa
                              ? attention.n_experts * attention.heads_per_expert
                              : attention.n_heads;
  const auto count = count_parameters(model);
  const int64_t head = config.vocab_size * config.d_model;
  const int64_t attended = config.n_layers * n_heads * attention.head_dim * seq_len;
  return 6.0 * static_cast<double>(count.non_embedding() + head + attended);
}

double measure_matrix_speed(at::ScalarType dtype) {
  using Clock = std::chrono::steady_clock;
  constexpr int64_t kSize = 1024;
  const at::NoGradGuard no_grad;
  const auto a = at::ones({kSize, kSize}, dtype);
  at::mm(a, a);
  double best = 0;
  const auto end = Clock::now() + std::chrono::milliseconds(100);
  do {
    const auto start = Clock::now();
    at::mm(a, a);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    best = std::max(best, 2.0 * kSize * kSize * kSize / seconds);
  } while (Clock::now() < end);
  return best;
}

}  // namespace dsmoe
