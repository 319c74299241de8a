#pragma once

#include "common/io.h"
#include "model/io/checkpoint_reader.h"
#include "model/packed_weights.h"

namespace dsmoe {

/// Loads and packs a model; the result equals that of load_model and pack_weights. The files are
/// mapped, and packed parts are dropped from memory, so that it holds little more than the packed
/// weights. Ignores PackOptions::keep_original: originals are not kept. Throws Error.
Transformer load_packed_model(Io& io,
                              const VerifiedCheckpoint& checkpoint,
                              const PackOptions& options);

}  // namespace dsmoe
