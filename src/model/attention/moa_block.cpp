#include "model/attention/moa_block.h"

#include "model/attention/expert_heads.h"

namespace dsmoe {

MoABlockImpl::MoABlockImpl(int64_t d_model, const AttentionConfig& config, Biases biases)
    : heads_per_expert_(config.heads_per_expert),
      head_dim_(config.head_dim),
      renormalise_(config.router.renormalise) {
  const int64_t d_keys = heads_per_expert_ * head_dim_;
  const int64_t d_wide = config.n_experts * d_keys;
  const bool inner = biases == Biases::kAll;
  router = register_module("router", Router(d_model, config.n_experts, config.router));
  const auto q_proj = register_module("q_proj", Linear(d_model, d_wide, inner));
  k_proj_ = register_module("k_proj", Linear(d_model, d_keys, inner));
  v_proj_ = register_module("v_proj", Linear(d_model, d_keys, inner));
  const auto o_proj = register_module("o_proj", Linear(d_wide, d_model, biases != Biases::kNone));
  experts_ = {.up = q_proj,
              .down = o_proj,
              .n_experts = config.n_experts,
              .d_model = d_model,
              .width = d_keys};
}

MoeOutput MoABlockImpl::forward(const at::Tensor& x,
                                const AttentionContext& context,
                                int64_t layer,
                                const RoutingPolicy& policy) {
  const auto routed = router(x);
  auto rule = policy.rule(static_cast<double>(experts_.n_experts));
  rule.renormalise = renormalise_;
  const auto path = choose_attention_path(context, x.size(1), x.scalar_type(), x.device());
  ExpertPass pass{
      experts_,
      policy,
      choose_experts(routed.router_probs.flatten(0, 1), rule, experts_.is_packed()),
      path == AttentionPath::kDecoding ? ExpertRole::kDecoding : ExpertRole::kAttention};
  const auto split = [&](const at::Tensor& y) {
    return y.view({x.size(0), x.size(1), heads_per_expert_, head_dim_});
  };
  // This order adds the gradients of x from queries, then keys, then values.
  const auto vk = project_together(x, {v_proj_, k_proj_});
  const auto flat = x.flatten(0, 1);  // [n_tokens, d_model]
  const auto& backend = choose_backend(pass, flat);
  backend.list(pass, flat);
  const auto q = backend.hidden(pass, flat).values;
  const auto answers = attend_experts(context, layer, pass, {q, split(vk[1]), split(vk[0])});
  return moe_output(backend.sum(pass, {answers}), routed, pass.choice);
}

void MoABlockImpl::pack(const PackOptions& options) {
  router->pack(options);
  experts_.pack(options);
  k_proj_->pack(options);
  v_proj_->pack(options);
}

}  // namespace dsmoe
