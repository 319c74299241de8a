#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include "model/attention/causal_attention.h"
#include "model/attention/moa_block.h"
#include "model/model_config.h"
#include "model/moe/ds_moe_layer.h"
#include "model/moe/routing_plan.h"
#include "model/norm.h"

namespace dsmoe {

/// One block's result; a record is undefined where that half is dense.
struct BlockOutput {
  at::Tensor x;  // [batch, seq, d_model], float32
  RoutingRecord moa;
  RoutingRecord moe;
};

/// Pre-norm residual block: x += attention(norm(x)); x += ffn(norm(x)). The residual stream is
/// float32.
class TransformerBlockImpl : public torch::nn::Module {
 public:
  explicit TransformerBlockImpl(const ModelConfig& config);

  BlockOutput forward(const at::Tensor& x,
                      const AttentionContext& context,
                      int64_t layer,
                      const LayerRouting& routing,
                      at::ScalarType compute_dtype);

 private:
  double dropout_;
  Norm attention_norm_{nullptr};
  Norm ffn_norm_{nullptr};
  CausalAttention attention_{nullptr};  // this or the next
  MoABlock moa_{nullptr};
  ExpertFfn ffn_{nullptr};  // this or the next
  DSMoELayer moe_{nullptr};
};
TORCH_MODULE(TransformerBlock);

}  // namespace dsmoe
