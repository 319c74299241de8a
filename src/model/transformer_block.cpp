#include "model/transformer_block.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/dropout.h>

namespace dsmoe {

TransformerBlockImpl::TransformerBlockImpl(const ModelConfig& config) : dropout_(config.dropout) {
  const auto norm = [&] { return Norm(config.norm, config.d_model, config.norm_eps, config.bias); };
  attention_norm_ = register_module("attention_norm", norm());
  if (config.attention.kind == AttentionKind::kMoa) {
    moa_ = register_module("moa", MoABlock(config.d_model, config.attention, config.bias));
  } else {
    attention_ = register_module("attention",
                                 CausalAttention(config.d_model, config.attention, config.bias));
  }
  ffn_norm_ = register_module("ffn_norm", norm());
  if (config.ffn.kind == FfnKind::kMoe) {
    moe_ = register_module("moe", DSMoELayer(config.d_model, config.ffn, config.bias));
  } else {
    ffn_ = register_module(
        "ffn",
        ExpertFfn(
            config.d_model, /*n_experts=*/1, config.ffn.d_ffn, config.ffn.activation, config.bias));
  }
}

BlockOutput TransformerBlockImpl::forward(const at::Tensor& x,
                                          const AttentionContext& context,
                                          int64_t layer,
                                          const LayerRouting& routing,
                                          at::ScalarType compute_dtype) {
  BlockOutput output;
  const auto dtype = x.scalar_type() == at::kDouble ? at::kDouble : compute_dtype;
  const auto add = [&](const at::Tensor& stream, const at::Tensor& y) {
    return stream + at::dropout(y.to(stream.scalar_type()), dropout_, is_training());
  };
  const auto attention_input = attention_norm_(x);  // [batch, seq, d_model]
  if (moa_.is_empty()) {
    output.x = add(x, attention_(attention_input.to(dtype), context, layer));
  } else {
    auto mixed = moa_(attention_input, context, layer, routing.moa, dtype);
    output.x = add(x, mixed.y);
    output.moa = std::move(mixed.routing);
  }
  const auto ffn_input = ffn_norm_(output.x);  // [batch, seq, d_model]
  if (moe_.is_empty()) {
    const auto flat = ffn_input.flatten(0, 1).to(dtype);
    output.x = add(output.x, ffn_(flat).view(x.sizes()));
  } else {
    auto mixed = moe_(ffn_input, routing.moe, dtype);
    output.x = add(output.x, mixed.y);
    output.moe = std::move(mixed.routing);
  }
  return output;
}

}  // namespace dsmoe
