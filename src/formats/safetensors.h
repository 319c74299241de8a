#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "common/io.h"

namespace dsmoe {

/// One tensor of a safetensors file. Offsets count from the end of the header.
struct TensorEntry {
  std::string name;
  std::string dtype;  // F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL
  std::vector<int64_t> shape;
  uint64_t begin = 0;
  uint64_t end = 0;
};

/// A tensor to write: contiguous bytes that outlive the call, or bytes that `load` returns when the
/// tensor is written and that stay valid until its next call, so that a file may exceed the memory.
struct TensorBytes {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  const void* data = nullptr;
  std::function<const void*()> load = {};  // used where data is null
};

/// Bytes of one element. Throws Error for a dtype that is not in the list above.
int64_t dtype_size_bytes(const std::string& dtype);

/// Returns XXH3-64 over name, dtype, shape and bytes, as 16 hex digits: it detects two tensors of
/// equal size that changed places.
std::string tensor_checksum(const TensorEntry& entry, const void* data);

/// Result of a write, for the manifest.
struct WrittenSafetensors {
  uint64_t size_bytes = 0;
  std::string hash;                    // XXH3-128 of the whole file, 32 hex digits
  std::vector<TensorEntry> tensors;    // in file order
  std::vector<std::string> checksums;  // one per tensor
};

/// Writes, fsyncs and closes a safetensors file that any reader accepts: no holes. The data section
/// starts at a multiple of 64 bytes and tensors whose size is one come first, by name, so these are
/// aligned; the others follow, by name. `metadata` becomes `__metadata__`. Throws RunError for a
/// failed write and Error for a name given twice.
WrittenSafetensors write_safetensors(Io& io,
                                     const std::string& path,
                                     const std::map<std::string, std::string>& metadata,
                                     const std::vector<TensorBytes>& tensors);

/// An open safetensors file of any origin, its header read and checked with limits before anything
/// is allocated: length at most 100 MB, no duplicate name, offsets without holes or overlap, sizes
/// that match dtype and shape, data that ends where the file ends. Throws Error naming file and
/// tensor.
class SafetensorsFile {
 public:
  SafetensorsFile(Io& io, const std::string& path);
  ~SafetensorsFile();
  SafetensorsFile(SafetensorsFile&& other) noexcept;
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(SafetensorsFile&&) = delete;

  const std::vector<TensorEntry>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// Null if there is no tensor of that name.
  const TensorEntry* find(const std::string& name) const;
  /// Returns the file position from which offsets of tensors count.
  uint64_t data_begin() const { return data_begin_; }
  /// Reads a tensor's bytes (entry.end - entry.begin) into `data`. Throws Error if the file ends
  /// early.
  void read(const TensorEntry& entry, void* data) const;

 private:
  void read_header();

  Io* io_;
  std::string path_;
  int fd_ = -1;
  uint64_t data_begin_ = 0;
  std::vector<TensorEntry> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace dsmoe
