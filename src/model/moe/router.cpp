#include "model/moe/router.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/silu.h>
#include <ATen/ops/softmax.h>

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
  // Float32 throughout: narrow bfloat16 products are slow on CPUs, and their sums drift.
  auto hidden = at_least_float32(x);
  if (!gate_proj_.is_empty()) hidden = at::silu(gate_proj_(hidden)) * up_proj_(hidden);
  const auto logits = out_proj_(hidden);  // [batch, seq, n_experts]
  return {logits, at::softmax(logits, -1)};
}

}  // namespace dsmoe
