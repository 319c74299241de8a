#include "model/packed_weights.h"

#include <malloc.h>

#include "model/transformer.h"

namespace dsmoe {

void pack_weights(Transformer& model, const PackOptions& options) {
  model->pack(options);
  // The allocator would keep the originals' pages for later.
  if (!options.keep_original) malloc_trim(0);
}

}  // namespace dsmoe
