#pragma once

#include "csrc_kernels/packed_linear/packed_matrix.h"

namespace dsmoe {

class Transformer;

/// How weights are laid out for inference.
struct PackOptions {
  PackedFormat format = PackedFormat::kBfloat16;
  /// Also keep the weights as they were, which gradients need; else their memory is given back.
  bool keep_original = false;
  /// Told of each piece of an original that was read for the last time, where they are given up.
  ReadCallback on_read = {};
};

/// Attaches a packed copy of its weight to every Linear: forward passes without gradients then use
/// the kernels of inference, and a weight whose original is gone refuses gradients.
///
/// Routers stay in float32, their hidden layers are at least bfloat16; norms and biases stay as
/// they are. An embedding that is only looked up is kept in bfloat16 unless the format is float32.
/// For one selection both executions then add the experts in one order: a token's result depends
/// neither on the batch nor on the number of threads (threshold_top_k excepted, see
/// depends_on_batch).
void pack_weights(Transformer& model, const PackOptions& options = {});

/// Memory of a model's weights, packed or not.
int64_t weight_memory_bytes(const Transformer& model);

}  // namespace dsmoe
