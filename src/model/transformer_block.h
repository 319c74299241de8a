#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include "model/attention/causal_attention.h"
#include "model/attention/moa_block.h"
#include "model/model_config.h"
#include "model/moe/ds_moe_layer.h"
#include "model/moe/partitioned_moe_layer.h"
#include "model/moe/routing_plan.h"
#include "model/norm.h"

namespace dsmoe {

/// The result of a block or of one half; a record is undefined if its half is dense or did not run.
struct BlockOutput {
  ResidualStream stream;
  RoutingRecord moa;
  RoutingRecord moe;
};

/// Pre-norm residual block: x += attention(norm(x)); x += ffn(norm(x)). The residual stream is
/// float32; each half leaves its output pending, for the next norm to add.
class TransformerBlockImpl : public torch::nn::Module {
 public:
  TransformerBlockImpl(const ModelConfig& config, int64_t layer);

  /// dtype: type of the products, of the pending output and of the output of the norms.
  BlockOutput attention_half(const ResidualStream& stream,
                             const AttentionContext& context,
                             int64_t layer,
                             const RoutingPolicy& policy,
                             at::ScalarType dtype);
  BlockOutput ffn_half(const ResidualStream& stream,
                       const RoutingPolicy& policy,
                       at::ScalarType dtype);

  /// True if a pass of one token per sequence over a cache needs a host sync in the experts.
  /// x [n_tokens, d_model], of the compute dtype
  bool decoding_needs_host_sync(const at::Tensor& x, const LayerRouting& routing) const;

  void pack(const PackOptions& options);

  /// The layer of a partitioned FFN; empty for other kinds.
  PartitionedMoELayer partitioned() const { return partitioned_; }

 private:
  double dropout_;
  Norm attention_norm_{nullptr};
  Norm ffn_norm_{nullptr};
  CausalAttention attention_{nullptr};  // this or the next
  MoABlock moa_{nullptr};
  ExpertFfn ffn_{nullptr};  // one of the three
  DSMoELayer moe_{nullptr};
  PartitionedMoELayer partitioned_{nullptr};
};
TORCH_MODULE(TransformerBlock);

}  // namespace dsmoe
