#pragma once

#include <cstdint>
#include <string>

#include "csrc_kernels/common/norm_kind.h"
#include "csrc_kernels/common/routing_rule.h"
#include "model/moe/router_kind.h"

namespace dsmoe {

class ConfigVisitor;

enum class PositionKind { kRotary, kLearned };
enum class RopeScalingKind { kNone, kLlama3 };
enum class AttentionKind { kDense, kMoa };
enum class FfnKind { kDense, kMoe, kPartitioned };

/// Projections with biases; arXiv:2404.05567 does not specify them. kOutput: only the last
/// projection of attention and FFN; its bias is added once and not weighted.
enum class Biases { kNone, kOutput, kAll };

/// Activations that the backward pass recomputes instead of the forward pass keeping them.
enum class Recompute {
  kNone,
  kAttention,  ///< the attention half of each block: frees much memory for little work
  kBlock,      ///< whole blocks: the forward pass keeps only their inputs
};

/// Rotary frequencies of a model trained for a longer context. With wavelength w = 2 pi / f and
/// context C: f stays where w < C / high_freq_factor, becomes f / factor where w > C /
/// low_freq_factor, and is blended between. Acts at any context length.
struct RopeScalingConfig {
  RopeScalingKind kind = RopeScalingKind::kNone;
  double factor = 8.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  int64_t original_max_seq_len = 8192;  ///< C, tokens
};

/// One router; arXiv:2404.05567, section 3.1. The paper does not specify its form.
struct RouterConfig {
  RouterKind kind = RouterKind::kSwiglu;
  int64_t d_hidden = 256;    ///< width of the hidden layer, if the kind has one
  bool renormalise = false;  ///< divide the selected weights by their sum

  bool has_hidden() const { return row_of(kind).hidden != Activation::kIdentity; }
  /// Columns of the last matrix.
  int64_t width(int64_t d_model) const { return has_hidden() ? d_hidden : d_model; }
  /// Rows of the hidden layer's matrices together; 0 without one.
  int64_t hidden_rows() const {
    return has_hidden() ? n_inputs(row_of(kind).hidden) * d_hidden : 0;
  }
};

/// Attention: a dense one of n_heads over n_kv_heads, or a mixture of n_experts, each of
/// heads_per_expert query heads over heads_per_expert shared key/value heads.
struct AttentionConfig {
  AttentionKind kind = AttentionKind::kMoa;
  int64_t head_dim = 64;
  int64_t n_heads = 8;           ///< dense
  int64_t n_kv_heads = 8;        ///< dense
  bool qk_norm = false;          ///< dense; RMSNorm of all queries and of all keys of a token
  int64_t n_experts = 8;         ///< moa
  int64_t heads_per_expert = 4;  ///< moa; also its number of key/value heads
  RouterConfig router;           ///< moa
};

/// How the gates of partitioned experts act; arXiv:2502.12455, section 4.
struct PartitionConfig {
  std::string layers = "all";  ///< layers cut into experts, as `0-3,7`; others are dense
  RouterActivation gates = RouterActivation::kSigmoid;  ///< softmax: over the selected (LLaMA-MoE)
  bool straight_through = true;                ///< closed gates receive the gradient of open ones
  bool count_scale = true;                     ///< multiply the output by n_experts / open gates
  ZeroActive zero_active = ZeroActive::kZero;  ///< experts of a token that opens no gate
};

/// Name of the activation as a value of model.ffn.activation.
std::string activation_name(Activation activation);

/// Feed-forward: a dense one of width d_ffn, a mixture of n_experts of width d_expert, or a dense
/// one that was cut into n_experts blocks of d_expert.
struct FfnConfig {
  FfnKind kind = FfnKind::kMoe;
  Activation activation = Activation::kGeluTanh;
  int64_t d_ffn = 2048;       ///< dense; partitioned, where it is n_experts * d_expert
  int64_t n_experts = 32;     ///< moe and partitioned
  int64_t d_expert = 64;      ///< moe and partitioned
  RouterConfig router;        ///< moe and partitioned
  PartitionConfig partition;  ///< partitioned

  /// The function that maps router_logits to router_probs.
  RouterActivation router_activation() const;
};

/// Defines the shape and the arithmetic of a model; stored in each checkpoint.
struct ModelConfig {
  int64_t vocab_size = 0;  ///< 0: taken from the tokenizer
  int64_t d_model = 512;
  int64_t n_layers = 8;
  int64_t max_seq_len = 1024;  ///< context, tokens
  NormKind norm = NormKind::kRmsNorm;
  double norm_eps = 1e-6;
  PositionKind positions = PositionKind::kRotary;
  double rope_theta = 10000.0;
  RopeScalingConfig rope_scaling;
  bool tie_embeddings = true;
  bool bias = false;         ///< in every projection and in layer norms
  bool output_bias = false;  ///< in the last projection of attention and FFN; bias has it anyway
  double dropout = 0.0;      ///< of the embedding and of each block's two outputs; 0: off
  AttentionConfig attention;
  FfnConfig ffn;
  std::string training_policy = "all";  ///< selection of training, and the default elsewhere

  Biases biases() const {
    return bias ? Biases::kAll : output_bias ? Biases::kOutput : Biases::kNone;
  }

  /// True if any FFN, or the FFN of the given layer, has experts.
  bool has_ffn_experts() const { return ffn.kind != FfnKind::kDense; }
  bool has_ffn_experts(int64_t layer) const;

  /// Throws Error naming the key if a value contradicts another.
  void validate() const;
};

/// Names every key of the `model` section once, for reading, writing and documentation.
void describe(ConfigVisitor& visitor, ModelConfig& config);

}  // namespace dsmoe
