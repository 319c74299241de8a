#pragma once

#include <string>
#include <vector>

#include "common/io.h"
#include "formats/gguf.h"

namespace dsmoe {

/// An open GGUF file of version 2 or 3 and any origin, its header read and checked with limits
/// before anything is allocated: header at most 256 MB and no longer than the file, arrays no
/// longer than the bytes left, no key or name twice, known number types, tensors inside the file.
/// Throws Error naming the file. 8-, 16- and 64-bit metadata numbers and nested arrays are refused
/// unless a key is one of these plain kinds.
class GgufFile {
 public:
  GgufFile(Io& io, const std::string& path);
  ~GgufFile();
  GgufFile(const GgufFile&) = delete;
  GgufFile& operator=(const GgufFile&) = delete;

  const GgufMetadata& metadata() const { return metadata_; }
  const std::vector<GgufTensor>& tensors() const { return tensors_; }
  /// Null if there is no such key or tensor.
  const GgufValue* find_value(const std::string& key) const;
  const GgufTensor* find_tensor(const std::string& name) const;
  /// Reads the bytes of one of tensors() into `data`.
  void read(const GgufTensor& tensor, void* data) const;

 private:
  void read_header();

  Io* io_;
  std::string path_;
  int fd_ = -1;
  uint64_t data_begin_ = 0;
  GgufMetadata metadata_;
  std::vector<GgufTensor> tensors_;
  std::vector<uint64_t> offsets_;  // of tensors_, from data_begin_
};

}  // namespace dsmoe
