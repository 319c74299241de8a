#include "model/moe/partitioned_moe_layer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/ones_like.h>

namespace dsmoe {

PartitionedMoELayerImpl::PartitionedMoELayerImpl(int64_t d_model,
                                                 const FfnConfig& config,
                                                 Biases biases)
    : config_(config.partition) {
  router = register_module(
      "router", Router(d_model, config.n_experts, config.router, config.router_activation()));
  experts = register_module(
      "experts", ExpertFfn(d_model, config.n_experts, config.d_expert, config.activation, biases));
}

RoutingRule PartitionedMoELayerImpl::rule_of(const RoutingPolicy& policy, int64_t n_experts) const {
  const bool sigmoid = config_.gates == RouterActivation::kSigmoid;
  auto rule = policy.rule(sigmoid ? 1.0 : static_cast<double>(n_experts));
  if (sigmoid) rule.zero_active = config_.zero_active;
  rule.straight_through = sigmoid && config_.straight_through;
  rule.renormalise = !sigmoid;
  rule.count_scale = config_.count_scale;
  return rule;
}

MoeOutput PartitionedMoELayerImpl::forward(const at::Tensor& x, const RoutingPolicy& policy) {
  const auto routed = router(x);
  auto gates = routed.router_probs.flatten(0, 1);  // [n_tokens, n_experts]
  auto rule = rule_of(policy, gates.size(1));
  if (gates_forced_to_one) {
    gates = at::ones_like(gates);
    rule = {};
  }
  const auto choice = choose_experts(gates, rule, experts->experts().is_packed());
  const bool needs_closed_outputs =
      rule.straight_through && at::GradMode::is_enabled() && choice.expert_weights.requires_grad();
  TORCH_CHECK(!needs_closed_outputs || policy.execution != Execution::kSparse,
              "PartitionedMoELayer: the straight-through estimator needs the outputs of closed "
              "experts; train with dense execution or model.partition.ste = false");
  const auto& executed = needs_closed_outputs ? policy.with(Execution::kDense) : policy;
  return moe_output(experts(x.flatten(0, 1), choice, executed), routed, choice);
}

}  // namespace dsmoe
