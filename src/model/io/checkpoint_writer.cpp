#include "model/io/checkpoint_writer.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <fmt/format.h>

#include "common/config_reader.h"
#include "common/error.h"

namespace dsmoe {
namespace {

void write_all_files(Io& io,
                     const std::string& directory,
                     const ModelSource& source,
                     const ConvertedContents& contents) {
  auto manifest = contents.manifest;
  auto config = source.config;
  auto files = contents.files;
  files.emplace_back("config.json",
                     config_to_json([&](ConfigVisitor& visitor) { describe(visitor, config); }));
  write_listed_files(io, directory, files, manifest);
  manifest.files.push_back(
      write_source(io, directory, "model-00001-of-00001.safetensors", source.tensors, at::kFloat));
  write_manifest(io, directory, manifest);
}

}  // namespace

OutputDirectory converted_output(const std::string& directory, Existing existing) {
  return {directory, existing, "manifest.json"};
}

FileRecord write_source(Io& io,
                        const std::string& directory,
                        const std::string& file_name,
                        const std::vector<LazyTensor>& tensors,
                        at::ScalarType dtype) {
  const at::NoGradGuard no_grad;
  at::Tensor held;  // the tensor being written
  std::vector<TensorBytes> bytes;
  for (const auto& tensor : tensors) {
    bytes.push_back(
        {tensor.name, dtype_name(dtype), tensor.shape, nullptr, [&held, &tensor, dtype] {
           held = at::Tensor();  // frees it before the next one is loaded
           held = tensor.load().to(dtype).contiguous();
           if (!at::isfinite(held).all().item<bool>()) {
             throw RunError(fmt::format("'{}' holds a NaN or Inf; not written", tensor.name));
           }
           return held.const_data_ptr();
         }});
  }
  const auto written =
      write_safetensors(io, directory + "/" + file_name, {{"format", "pt"}}, bytes);
  return {file_name, written.size_bytes, written.hash, written.tensors, written.checksums};
}

void write_converted(Io& io,
                     const OutputDirectory& output,
                     const ModelSource& source,
                     const ConvertedContents& contents) {
  write_output_directory(io, output, [&](const std::string& directory) {
    write_all_files(io, directory, source, contents);
    verify_checkpoint(io, directory);
  });
}

}  // namespace dsmoe
