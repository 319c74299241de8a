#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <vector>

#include "model/attention/kv_cache.h"
#include "model/linear.h"
#include "model/model_config.h"
#include "model/model_output.h"
#include "model/moe/routing_plan.h"
#include "model/norm.h"
#include "model/transformer_block.h"

namespace dsmoe {

struct ForwardOptions {
  at::ScalarType compute_dtype =
      at::kFloat;            ///< of matrix products; norms, router logits, losses stay float32
  KvCache* cache = nullptr;  ///< tokens continue its sequences; the caller advances it
  /// [batch, 1] int64 on the model's device, positions of the cache's next tokens; undefined:
  /// forward copies them there, with a host sync.
  at::Tensor cached_positions{};
  /// Sequences of the cache that tokens [1, n_tokens] continue, one segment after another; needs
  /// packed weights. Empty: tokens [batch, seq] continue all sequences.
  std::vector<PassSegment> segments{};
  Recompute recompute = Recompute::kNone;
  /// Positions in this pass of the tokens that get logits: one per sequence, or any tokens with
  /// segments; empty: all tokens.
  std::vector<int64_t> logits_at{};
  bool logits = true;  ///< false: features only, for a loss that computes logits in chunks
  /// [batch, seq] int64, position of each token in its document, from 0. Documents packed into one
  /// sequence then do not attend to one another, and results do not depend on their place in it.
  /// Undefined: one document. Not with a cache.
  at::Tensor document_positions{};
};

/// A decoder-only language model of attention and FFN blocks, dense or mixed.
///
/// One class trains and infers: the plan selects the experts and the way to compute them.
class TransformerImpl : public torch::nn::Module {
 public:
  /// Weights are uninitialised except norms; see init_weights. Throws Error if the config is
  /// invalid.
  explicit TransformerImpl(const ModelConfig& config);

  /// tokens   [batch, seq] int64, ids below vocab_size
  /// returns  features, logits [batch, seq, vocab_size] or [n_wanted, 1, vocab_size] and one
  /// RoutingRecord per layer and
  ///          kind; logits are float32 where weights are packed
  /// Throws c10::Error for a wrong shape and Error for a context above max_seq_len.
  ModelOutput forward(const at::Tensor& tokens,
                      const RoutingPlan& plan,
                      const ForwardOptions& options = {});

  /// See pack_weights.
  void pack(const PackOptions& options);

  /// Debug switch: while on, every gate of partitioned experts is 1, so that the model equals the
  /// dense model that it was cut from.
  void force_gates(bool forced);

  const ModelConfig& config() const { return config_; }
  /// True if a pass of one token per sequence under `plan` runs without a host sync and so can be
  /// recorded as a graph.
  bool can_record_decoding(const RoutingPlan& plan,
                           KvCache& cache,
                           at::ScalarType compute_dtype) const;
  /// Device of all parameters.
  at::Device device() const { return embedding_.device(); }
  int64_t n_kv_heads() const;
  /// Packed embedding of a model with tied head and packed weights.
  const PackedMatrix& packed_embedding() const { return packed_embedding_; }
  KvShape kv_shape(at::ScalarType dtype) const;
  /// A cache for `batch` sequences of at most `capacity` tokens.
  KvCache make_cache(int64_t batch, int64_t capacity, at::ScalarType dtype) const;

 private:
  at::Tensor logits_of(const ModelOutput& output, const ForwardOptions& options);
  ResidualStream embed(const at::Tensor& tokens,
                       const at::Tensor& document_positions,
                       AttentionContext& context);
  BlockOutput run_block(size_t index,
                        const ResidualStream& stream,
                        const AttentionContext& context,
                        const LayerRouting& routing,
                        const ForwardOptions& options);

  ModelConfig config_;
  at::Tensor embedding_;           // [vocab_size, d_model]
  at::Tensor position_embedding_;  // [max_seq_len, d_model], learned positions only
  at::Tensor rotary_frequencies_;  // [head_dim / 2] float64, rotary positions only
  std::vector<TransformerBlock> blocks_;
  ComputeCopy embedding_copy_;
  PackedMatrix packed_embedding_;  // tied only, packed only
  Norm final_norm_{nullptr};
  Linear head_{nullptr};  // untied only
};
TORCH_MODULE(Transformer);

/// Draws every matrix from N(0, std), output projections of attention and FFN from N(0, std /
/// sqrt(2 n_layers)); sets norms to one and biases to zero. Depends on the seed only.
void init_weights(Transformer& model, uint64_t seed, double std = 0.02);

}  // namespace dsmoe
