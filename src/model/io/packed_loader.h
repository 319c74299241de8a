#pragma once

#include "common/io.h"
#include "model/io/checkpoint_reader.h"
#include "model/packed_weights.h"

namespace dsmoe {

/// The model that load_model and pack_weights give, from files mapped into memory: what was packed
/// is dropped piece by piece, so that hardly more than the packed weights is ever in memory. The
/// originals are not kept, whatever the options say. Throws Error.
Transformer load_packed_model(Io& io,
                              const VerifiedCheckpoint& checkpoint,
                              const PackOptions& options);

}  // namespace dsmoe
