#include "model/transformer_block.h"

#include <ATen/ops/dropout.h>

namespace dsmoe {

TransformerBlockImpl::TransformerBlockImpl(const ModelConfig& config, int64_t layer)
    : dropout_(config.dropout) {
  const auto norm = [&] { return Norm(config.norm, config.d_model, config.norm_eps, config.bias); };
  attention_norm_ = register_module("attention_norm", norm());
  if (config.attention.kind == AttentionKind::kMoa) {
    moa_ = register_module("moa", MoABlock(config.d_model, config.attention, config.biases()));
  } else {
    attention_ = register_module(
        "attention",
        CausalAttention(config.d_model, config.attention, config.biases(), config.norm_eps));
  }
  ffn_norm_ = register_module("ffn_norm", norm());
  if (config.ffn.kind == FfnKind::kMoe) {
    moe_ = register_module("moe", DSMoELayer(config.d_model, config.ffn, config.biases()));
  } else if (config.has_ffn_experts(layer)) {
    partitioned_ =
        register_module("moe", PartitionedMoELayer(config.d_model, config.ffn, config.biases()));
  } else {
    ffn_ = register_module("ffn",
                           ExpertFfn(config.d_model,
                                     /*n_experts=*/1,
                                     config.ffn.d_ffn,
                                     config.ffn.activation,
                                     config.biases()));
  }
}

BlockOutput TransformerBlockImpl::attention_half(const ResidualStream& stream,
                                                 const AttentionContext& context,
                                                 int64_t layer,
                                                 const RoutingPolicy& policy,
                                                 at::ScalarType dtype) {
  const auto [residual, x] = attention_norm_(stream, dtype);  // [batch, seq, d_model]
  auto mixed = moa_.is_empty() ? MoeOutput{attention_(x, context, layer), {}}
                               : moa_(x, context, layer, policy);
  return {{residual, at::dropout(mixed.y, dropout_, is_training())}, std::move(mixed.routing), {}};
}

BlockOutput TransformerBlockImpl::ffn_half(const ResidualStream& stream,
                                           const RoutingPolicy& policy,
                                           at::ScalarType dtype) {
  const auto [residual, x] = ffn_norm_(stream, dtype);  // [batch, seq, d_model]
  auto mixed = !moe_.is_empty()           ? moe_(x, policy)
               : !partitioned_.is_empty() ? partitioned_(x, policy)
                                          : MoeOutput{ffn_(x.flatten(0, 1)).view(x.sizes()), {}};
  return {{residual, at::dropout(mixed.y, dropout_, is_training())}, {}, std::move(mixed.routing)};
}

bool TransformerBlockImpl::decoding_needs_host_sync(const at::Tensor& x,
                                                    const LayerRouting& routing) const {
  if (!moa_.is_empty() &&
      needs_host_sync({moa_->experts(), routing.moa, {}, ExpertRole::kDecoding}, x)) {
    return true;
  }
  if (!ffn_.is_empty()) return needs_host_sync({ffn_->experts()}, x);
  const auto& experts = moe_.is_empty() ? partitioned_->experts : moe_->experts;
  return needs_host_sync({experts->experts(), routing.moe}, x);
}

void TransformerBlockImpl::pack(const PackOptions& options) {
  if (!attention_.is_empty()) attention_->pack(options);
  if (!moa_.is_empty()) moa_->pack(options);
  if (!ffn_.is_empty()) ffn_->pack(options);
  if (!moe_.is_empty()) {
    moe_->router->pack(options);
    moe_->experts->pack(options);
  }
  if (!partitioned_.is_empty()) {
    partitioned_->router->pack(options);
    partitioned_->experts->pack(options);
  }
}

}  // namespace dsmoe
