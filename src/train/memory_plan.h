#pragma once

#include <cstdint>

#include "train/train_config.h"

namespace dsmoe {

/// Bytes that one rank needs to train, by content. Every rank holds the whole model.
struct TrainingMemory {
  double weights = 0;                   ///< float32
  double gradients = 0;                 ///< float32
  double optimizer = 0;                 ///< AdamW: two float32 values a parameter
  double compute_weights = 0;           ///< copies of matrices in a narrower compute dtype
  double activations = 0;               ///< all activations that the forward pass keeps
  double activations_selective = 0;     ///< the same under checkpoint_activations selective
  double activations_checkpointed = 0;  ///< the same under checkpoint_activations full
  double loss = 0;  ///< last norm, a chunk of logits, the gradients of features and head
  /// Buffers of one FFN's backward pass: recomputed values and intermediates
  double workspace = 0;
  double communication = 0;  ///< gradient buckets of all-reduce; 0 on one rank
  double exchange = 0;       ///< updated parameters that a sharded optimizer sends
  double tensors = 0;        ///< peak of the above with the config's checkpoint_activations
  double heap = 0;           ///< freed blocks that are kept for later tensors of their size
  double runtime = 0;   ///< estimate: code of the libraries and kernels made at run time, once used
  double peak = 0;      ///< tensors, heap and runtime
  double snapshot = 0;  ///< copy of weights and optimizer for saving, in host memory; not in peak
};

/// Bytes per token that one block keeps from its forward pass for its backward pass, by half.
struct ActivationBytes {
  double attention = 0;
  double ffn = 0;
};
ActivationBytes activation_bytes_per_token(const ModelConfig& config, double bytes_per_value);

/// One optimizer step of the config on one of n_ranks. vocab_size must be known.
TrainingMemory training_memory(const RunConfig& config, int64_t n_ranks);

/// Keys and values of one token in every layer.
double kv_cache_bytes_per_token(const ModelConfig& config, double bytes_per_value);

}  // namespace dsmoe
