#include "model/moe/ds_moe_layer.h"

namespace dsmoe {

DSMoELayerImpl::DSMoELayerImpl(int64_t d_model, const FfnConfig& config, Biases biases)
    : renormalise_(config.router.renormalise) {
  router = register_module("router", Router(d_model, config.n_experts, config.router));
  experts = register_module(
      "experts", ExpertFfn(d_model, config.n_experts, config.d_expert, config.activation, biases));
}

MoeOutput DSMoELayerImpl::forward(const at::Tensor& x, const RoutingPolicy& policy) {
  const auto routed = router(x);  // [batch, seq, n_experts]
  if (experts->runs_packed()) return forward_packed(x, routed, policy);
  const auto probs = routed.router_probs.flatten(0, 1);
  const auto selection = select_experts(probs, policy, renormalise_);
  const auto flat = x.flatten(0, 1);  // [n_tokens, d_model]
  const auto y = runs_sparse(policy, probs.size(1), experts->parameters_per_expert())
                     ? experts->forward_sparse(flat, selection)
                     : experts->forward_dense(flat, selection.expert_weights);
  return {y.view(x.sizes()),
          {routed.router_logits,
           routed.router_probs,
           selection.selected.view(routed.router_probs.sizes())}};
}

MoeOutput DSMoELayerImpl::forward_packed(const at::Tensor& x,
                                         const RouterOutput& routed,
                                         const RoutingPolicy& policy) {
  const auto& probs = routed.router_probs;
  auto rule = choice_rule(policy, static_cast<double>(probs.size(2)));
  rule.renormalise = renormalise_;
  const auto choice =
      choose_experts(probs.flatten(0, 1), rule, policy.execution == Execution::kDense);
  const auto y = experts->forward_packed(x.flatten(0, 1), choice.pairs);
  return {y.view(x.sizes()), {routed.router_logits, probs, choice.selected.view(probs.sizes())}};
}

}  // namespace dsmoe
