#pragma once

#include <cstdint>

#include "model/model_config.h"
#include "model/parameter_count.h"

namespace dsmoe {

/// Floating-point operations of one token's forward pass: 2 per weight of each matrix product (the
/// head included, the embedding look-up not) and, per layer, 4 * n_keys * width of attention, where
/// width is head_dim times the query heads computed.
///
/// active  experts per layer, see all_experts
/// n_keys  keys per query: on average half the sequence in a causal pass over all of it, the
///         whole context in decoding
double forward_flops_per_token(const ModelConfig& config,
                               const ActiveExperts& active,
                               double n_keys);

/// Floating-point operations of one training token: forward and backward (twice the forward).
/// Recomputed activations are not counted. Without `active` every expert is.
double train_flops_per_token(const ModelConfig& config, int64_t seq_len);
double train_flops_per_token(const ModelConfig& config,
                             const ActiveExperts& active,
                             int64_t seq_len);

}  // namespace dsmoe
