#include "model/moe/ds_moe_layer.h"

namespace dsmoe {

DSMoELayerImpl::DSMoELayerImpl(int64_t d_model, const FfnConfig& config, Biases biases)
    : renormalise_(config.router.renormalise) {
  router = register_module("router", Router(d_model, config.n_experts, config.router));
  experts = register_module(
      "experts", ExpertFfn(d_model, config.n_experts, config.d_expert, config.activation, biases));
}

MoeOutput DSMoELayerImpl::forward(const at::Tensor& x, const RoutingPolicy& policy) {
  const auto routed = router(x);
  const auto probs = routed.router_probs.flatten(0, 1);  // [n_tokens, n_experts]
  auto rule = policy.rule(static_cast<double>(probs.size(1)));
  rule.renormalise = renormalise_;
  const auto choice = choose_experts(probs, rule, experts->experts().is_packed());
  return moe_output(experts(x.flatten(0, 1), choice, policy), routed, choice);
}

}  // namespace dsmoe
