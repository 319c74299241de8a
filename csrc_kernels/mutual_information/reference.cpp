#include <ATen/TensorOperators.h>
#include <ATen/ops/log_softmax.h>

#include <algorithm>

#include "csrc_kernels/mutual_information/mutual_information.h"

namespace dsmoe {

at::Tensor mutual_information_ref(const at::Tensor& logits,
                                  const at::Tensor& counted,
                                  const at::Tensor& mean_probs,
                                  int64_t n_tokens) {
  const auto rows =
      counted.defined() ? logits.index_select(0, counted.nonzero().squeeze(1)) : logits;
  const auto log_probs = at::log_softmax(rows, -1);
  const auto probs = log_probs.exp();
  const auto mean = mean_probs.defined() ? mean_probs : probs.detach().mean(0);
  // An expert with probability 0 in every row adds nothing.
  const auto divergence = (probs * (log_probs - mean.clamp_min(1e-38).log())).sum();
  return -divergence /
         static_cast<double>(std::max<int64_t>(n_tokens > 0 ? n_tokens : rows.size(0), 1));
}

}  // namespace dsmoe
