#include "model/moe/router.h"

#include "csrc_kernels/expert_rows/expert_rows.h"
#include "csrc_kernels/router/router.h"
#include "csrc_kernels/router/router_probs.h"
#include "csrc_kernels/weighted_activation/weighted_activation.h"

namespace dsmoe {

RouterImpl::RouterImpl(int64_t d_model,
                       int64_t n_experts,
                       const RouterConfig& config,
                       RouterActivation activation)
    : d_model_(d_model), hidden_(row_of(config.kind).hidden), activation_(activation) {
  const auto hidden = [&] { return Linear(d_model, config.d_hidden, false); };
  if (n_inputs(hidden_) == 2) gate_proj_ = register_module("gate_proj", hidden());
  if (config.has_hidden()) up_proj_ = register_module("up_proj", hidden());
  out_proj_ = register_module("out_proj", Linear(config.width(d_model), n_experts, false));
}

RouterOutput RouterImpl::forward(const at::Tensor& x) {
  TORCH_CHECK(x.dim() == 3 && x.size(2) == d_model_,
              "Router: expected x of shape [batch, seq, d_model=",
              d_model_,
              "], got ",
              x.sizes());
  if (out_proj_->runs_packed()) return forward_packed(x);
  RouterWeights weights;
  weights.out = out_proj_->weight;
  auto features = x.flatten(0, 1);  // [n_tokens, d_model or d_hidden]
  if (!gate_proj_.is_empty()) {
    weights.gate = gate_proj_->weight;
    weights.up = up_proj_->weight;
    weights.hidden = hidden_copy_.values({weights.gate, weights.up}, x.scalar_type());
  } else if (!up_proj_.is_empty()) {
    features = weighted_activation(hidden_, up_proj_(features), {}, {});
  }
  const bool is_sigmoid = activation_ == RouterActivation::kSigmoid;
  const auto result = route(features, weights, is_sigmoid);
  const auto shaped = [&](const at::Tensor& y) { return y.view({x.size(0), x.size(1), -1}); };
  return {shaped(result.logits), shaped(result.probs)};
}

void RouterImpl::pack(const PackOptions& options) {
  const bool wide = options.format == PackedFormat::kFloat32;
  const PackOptions hidden{wide ? PackedFormat::kFloat32 : PackedFormat::kBfloat16, true};
  if (!gate_proj_.is_empty()) gate_proj_->pack(hidden);
  if (!up_proj_.is_empty()) up_proj_->pack(hidden);
  out_proj_->pack({PackedFormat::kFloat32, true});
}

RouterOutput RouterImpl::forward_packed(const at::Tensor& x) {
  auto features = x.flatten(0, 1).contiguous();  // [n_tokens, d_model or d_hidden]
  if (!up_proj_.is_empty()) {
    const ExpertInput hidden{.up = up_proj_->packed(),
                             .gate = gate_proj_.is_empty() ? PackedLinear{} : gate_proj_->packed(),
                             .activation = hidden_};
    features = expert_hidden(features, one_expert(features.size(0)), hidden);
  }
  const auto logits = packed_linear(features, {out_proj_->packed()}, at::kFloat)[0];
  const auto probs = router_probs(logits, activation_ == RouterActivation::kSigmoid);
  const auto shaped = [&](const at::Tensor& y) { return y.view({x.size(0), x.size(1), -1}); };
  return {shaped(logits), shaped(probs)};
}

}  // namespace dsmoe
