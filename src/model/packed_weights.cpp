#include "model/packed_weights.h"

#include <malloc.h>

#include "model/transformer.h"

namespace dsmoe {

void pack_weights(Transformer& model, const PackOptions& options) {
  model->pack(options);
  // Without this the allocator keeps the pages of the originals.
  if (!options.keep_original) malloc_trim(0);
}

int64_t weight_memory_bytes(const Transformer& model) {
  const auto bytes_of = [](const at::Tensor& tensor) {
    return tensor.defined() ? static_cast<int64_t>(tensor.nbytes()) : 0;
  };
  int64_t bytes = bytes_of(model->packed_embedding().data);
  for (const auto& tensor : model->parameters()) bytes += bytes_of(tensor);
  for (const auto& module : model->modules()) {
    if (const auto* linear = module->as<Linear>()) bytes += bytes_of(linear->packed_weight.data);
  }
  return bytes;
}

}  // namespace dsmoe
