#include "model/moe/partitioned_moe_layer.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/clamp_min.h>
#include <ATen/ops/logical_or.h>
#include <ATen/ops/ones_like.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros_like.h>

namespace dsmoe {
namespace {

// [n_tokens, n_experts] bool: `selected`, and for tokens that selected nothing what the rule says.
at::Tensor apply_zero_rule(const at::Tensor& selected, const at::Tensor& gates, ZeroActive rule) {
  if (rule == ZeroActive::kZero) return selected;
  const auto none = selected.any(1, /*keepdim=*/true).logical_not();  // [n_tokens, 1]
  if (rule == ZeroActive::kAll) return at::logical_or(selected, none);
  return at::where(none, selected_experts(gates, RoutingPolicy::top_k(1), 1.0), selected);
}

}  // namespace

PartitionedMoELayerImpl::PartitionedMoELayerImpl(int64_t d_model,
                                                 const FfnConfig& config,
                                                 Biases biases)
    : config_(config.partition) {
  router = register_module(
      "router", Router(d_model, config.n_experts, config.router, config.router_activation()));
  experts = register_module(
      "experts", ExpertFfn(d_model, config.n_experts, config.d_expert, config.activation, biases));
}

ExpertSelection PartitionedMoELayerImpl::open_gates(const at::Tensor& gates,
                                                    const RoutingPolicy& policy) const {
  const auto selected =
      apply_zero_rule(selected_experts(gates, policy, 1.0), gates, config_.zero_active);
  auto weights = at::where(selected, gates, at::zeros_like(gates));
  // Exactly 0 for a closed gate and the gate itself for an open one; the derivative is 1 for both.
  if (config_.straight_through) weights = (weights - gates).detach() + gates;
  return {selected, weights};
}

// The policy's selection and what it does to weights, for kernels that choose.
RoutingRule PartitionedMoELayerImpl::rule_of(const RoutingPolicy& policy, int64_t n_experts) const {
  const bool sigmoid = config_.gates == RouterActivation::kSigmoid;
  auto rule = choice_rule(policy, sigmoid ? 1.0 : static_cast<double>(n_experts));
  if (sigmoid) rule.zero_active = config_.zero_active;
  rule.renormalise = !sigmoid;
  rule.count_scale = config_.count_scale;
  return rule;
}

ExpertSelection PartitionedMoELayerImpl::weigh(const at::Tensor& gates,
                                               const RoutingPolicy& policy) const {
  if (gates_forced_to_one) {
    return {at::ones_like(gates, gates.options().dtype(at::kBool)), at::ones_like(gates)};
  }
  if (!at::GradMode::is_enabled() && has_choice_kernel(gates)) {
    const auto chosen = choose_weights(gates.contiguous(), rule_of(policy, gates.size(1)));
    return {chosen.selected, chosen.weights};
  }
  auto selection = config_.gates == RouterActivation::kSigmoid
                       ? open_gates(gates, policy)
                       : select_experts(gates, policy, /*renormalise=*/true);
  if (config_.count_scale) {
    const auto n_open = selection.selected.sum(1, /*keepdim=*/true).clamp_min(1);
    selection.expert_weights = selection.expert_weights * (static_cast<double>(gates.size(1)) /
                                                           n_open.to(gates.scalar_type()));
  }
  return selection;
}

MoeOutput PartitionedMoELayerImpl::forward(const at::Tensor& x, const RoutingPolicy& policy) {
  const auto routed = router(x);  // [batch, seq, n_experts]
  if (experts->runs_packed()) return forward_packed(x, routed, policy);
  const auto selection = weigh(routed.router_probs.flatten(0, 1), policy);
  const bool needs_closed_outputs = config_.straight_through && at::GradMode::is_enabled() &&
                                    selection.expert_weights.requires_grad();
  TORCH_CHECK(!needs_closed_outputs || policy.execution != Execution::kSparse,
              "PartitionedMoELayer: the straight-through estimator needs the outputs of closed "
              "experts; train with dense execution or model.partition.ste = false");
  const int64_t n_experts = routed.router_probs.size(2);
  const bool sparse =
      !needs_closed_outputs && runs_sparse(policy, n_experts, experts->parameters_per_expert());
  const auto flat = x.flatten(0, 1);  // [n_tokens, d_model]
  const auto y = sparse ? experts->forward_sparse(flat, selection)
                        : experts->forward_dense(flat, selection.expert_weights);
  return {y.view(x.sizes()),
          {routed.router_logits,
           routed.router_probs,
           selection.selected.view(routed.router_probs.sizes())}};
}

MoeOutput PartitionedMoELayerImpl::forward_packed(const at::Tensor& x,
                                                  const RouterOutput& routed,
                                                  const RoutingPolicy& policy) {
  const auto& gates = routed.router_probs;
  const auto y_of = [&](const ExpertChoice& choice) {
    const auto y = experts->forward_packed(x.flatten(0, 1), choice.pairs);
    return MoeOutput{y.view(x.sizes()),
                     {routed.router_logits, gates, choice.selected.view(gates.sizes())}};
  };
  if (gates_forced_to_one) return y_of(choose_experts(at::ones_like(gates).flatten(0, 1), {}));
  return y_of(choose_experts(
      gates.flatten(0, 1), rule_of(policy, gates.size(2)), policy.execution == Execution::kDense));
}

}  // namespace dsmoe
