#pragma once

#include <string>
#include <vector>

#include "common/io.h"
#include "formats/safetensors.h"

namespace dsmoe {

/// The tensors of a model in files of some format, to be read one at a time.
class TensorSource {
 public:
  virtual ~TensorSource() = default;
  /// Returns every tensor; only the source can interpret the offsets.
  virtual const std::vector<TensorEntry>& tensors() const = 0;
  /// Reads the bytes of one of them, entry.end - entry.begin. Throws Error.
  virtual void read(const TensorEntry& entry, void* data) const = 0;
};

/// One or several safetensors files that together hold each tensor once.
class SafetensorsSource final : public TensorSource {
 public:
  /// Throws Error naming the file for a damaged file or a tensor that another file holds too.
  SafetensorsSource(Io& io, const std::vector<std::string>& paths);
  const std::vector<TensorEntry>& tensors() const override { return tensors_; }
  void read(const TensorEntry& entry, void* data) const override;

 private:
  std::vector<SafetensorsFile> files_;
  std::vector<TensorEntry> tensors_;
  std::vector<size_t> file_of_tensor_;
};

/// Opens the weights of a directory in Hugging Face's layout: `model.safetensors`, or the shards of
/// `model.safetensors.index.json`, checked against that index. Throws Error.
SafetensorsSource open_sharded_safetensors(Io& io, const std::string& directory);

}  // namespace dsmoe
