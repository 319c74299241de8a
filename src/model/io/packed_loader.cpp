#include "model/io/packed_loader.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>

#include <map>
#include <memory>

#include "formats/mapped_file.h"

namespace dsmoe {
namespace {

using MappedFiles = std::map<std::string, std::unique_ptr<MappedFile>>;  // by path

// The mapped bytes of the file if they are aligned, else a copy.
at::Tensor map_tensor(const StoredTensor& stored, MappedFiles& files) {
  auto& file = files[stored.path];
  if (file == nullptr) file = std::make_unique<MappedFile>(stored.path);
  const auto options = stored.target.options().requires_grad(false);
  const auto* data = file->data() + stored.file->data_begin() + stored.entry.begin;
  auto value = at::from_blob(
      const_cast<std::byte*>(data), stored.target.sizes(), at::TensorOptions(options.dtype()));
  const bool aligned = reinterpret_cast<uintptr_t>(data) % value.element_size() == 0;
  return aligned ? value : value.clone();
}

}  // namespace

Transformer load_packed_model(Io& io,
                              const VerifiedCheckpoint& checkpoint,
                              const PackOptions& options) {
  const at::NoGradGuard no_grad;
  Transformer model(read_model_config(io, checkpoint.directory));
  model->eval();
  MappedFiles files;
  auto stored = match_tensors(io, checkpoint, "model-", named_tensors(*model));
  for (auto& one : stored) one.target.set_data(map_tensor(one, files));
  auto own = options;
  own.keep_original = false;
  own.on_read = [&](const void* data, size_t size_bytes) {
    if (options.on_read) options.on_read(data, size_bytes);
    for (const auto& [path, file] : files) {
      if (file->contains(data)) file->release(data, size_bytes);
    }
  };
  pack_weights(model, own);
  // Norms, biases and routers are copied out of the files unchanged.
  for (auto& [file, path, entry, target] : stored) {
    if (files.at(path)->contains(target.const_data_ptr())) target.set_data(target.clone());
  }
  return model;
}

}  // namespace dsmoe
