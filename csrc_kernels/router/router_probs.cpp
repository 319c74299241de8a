#include "csrc_kernels/router/router_probs.h"

#include <ATen/ops/empty_like.h>

#include <algorithm>
#include <cmath>

namespace dsmoe {
namespace {

void softmax(const float* logits, int64_t n, float* probs) {
  const float greatest = *std::max_element(logits, logits + n);
  float sum = 0.0F;
  for (int64_t i = 0; i < n; ++i) {
    probs[i] = std::exp(logits[i] - greatest);
    sum += probs[i];
  }
  for (int64_t i = 0; i < n; ++i) probs[i] /= sum;
}

}  // namespace

at::Tensor router_probs(const at::Tensor& logits, bool sigmoid) {
  TORCH_CHECK(logits.dim() == 2 && logits.scalar_type() == at::kFloat && logits.is_contiguous() &&
                  logits.size(1) > 0,
              "router_probs: expected logits [n_tokens, n_experts] float32, contiguous, got ",
              logits.sizes());
  auto result = at::empty_like(logits);
  const auto* from = logits.const_data_ptr<float>();
  auto* to = result.data_ptr<float>();
  if (sigmoid) {
    std::transform(
        from, from + logits.numel(), to, [](float x) { return 1.0F / (1.0F + std::exp(-x)); });
    return result;
  }
  const int64_t n = logits.size(1);
  for (int64_t at = 0; at < logits.numel(); at += n) softmax(from + at, n, to + at);
  return result;
}

}  // namespace dsmoe
