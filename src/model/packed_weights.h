#pragma once

#include "csrc_kernels/packed_linear/packed_matrix.h"

namespace dsmoe {

class Transformer;

/// Layout of weights for inference.
struct PackOptions {
  PackedFormat format = PackedFormat::kBfloat16;
  /// Keep the original weights too; gradients need them. Otherwise their memory is freed.
  bool keep_original = false;
  /// Called for each part of an original after its last read, if originals are not kept.
  ReadCallback on_read = {};
};

/// Attaches a packed copy of its weight to every Linear. Forward passes without gradients then use
/// the kernels of inference. A Linear without its original weight throws if a gradient is recorded.
///
/// Routers stay in float32, their hidden layers are at least bfloat16; norms and biases do not
/// change. An embedding that is not also the head is kept in bfloat16 unless the format is float32.
/// For one selection both executions then add the experts in one order: a token's result depends
/// neither on the batch nor on the number of threads (threshold_top_k excepted, see
/// depends_on_batch).
void pack_weights(Transformer& model, const PackOptions& options = {});

/// Memory of a model's weights, packed or not.
int64_t weight_memory_bytes(const Transformer& model);

}  // namespace dsmoe
