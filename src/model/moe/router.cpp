#include "model/moe/router.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/softmax.h>

#include "csrc_kernels/moe/weighted_activation.h"

namespace dsmoe {

RouterImpl::RouterImpl(int64_t d_model, int64_t n_experts, const RouterConfig& config)
    : d_model_(d_model) {
  if (config.kind == RouterKind::kSwiglu) {
    gate_proj_ = register_module("gate_proj", Linear(d_model, config.d_hidden, false));
    up_proj_ = register_module("up_proj", Linear(d_model, config.d_hidden, false));
    out_proj_ = register_module("out_proj", Linear(config.d_hidden, n_experts, false));
  } else {
    out_proj_ = register_module("out_proj", Linear(d_model, n_experts, false));
  }
}

RouterOutput RouterImpl::forward(const at::Tensor& x) {
  TORCH_CHECK(x.dim() == 3 && x.size(2) == d_model_,
              "Router: expected x of shape [batch, seq, d_model=",
              d_model_,
              "], got ",
              x.sizes());
  auto hidden = x.flatten(0, 1);  // [n_tokens, d_model]
  if (!gate_proj_.is_empty()) {
    hidden = weighted_activation(Activation::kSwiglu, up_proj_(hidden), gate_proj_(hidden), {});
  }
  // Logits in float32: narrow bfloat16 products are slow on CPUs, and their sums drift.
  const auto logits = out_proj_(at_least_float32(hidden))
                          .view({x.size(0), x.size(1), -1});  // [batch, seq, n_experts]
  return {logits, at::softmax(logits, -1)};
}

}  // namespace dsmoe
