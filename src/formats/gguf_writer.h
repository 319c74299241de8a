#pragma once

#include <string>
#include <vector>

#include "common/io.h"
#include "formats/gguf.h"

namespace dsmoe {

/// Writes a GGUF file, version 3: the header first, then the tensors one by one, so that only one
/// of them is in memory. Overwrites a file of that name: pass a path from write_output_file. Throws
/// RunError for a failed write and Error for a key or name given twice.
class GgufWriter {
 public:
  GgufWriter(Io& io,
             std::string path,
             const GgufMetadata& metadata,
             std::vector<GgufTensor> tensors);
  ~GgufWriter();
  GgufWriter(const GgufWriter&) = delete;
  GgufWriter& operator=(const GgufWriter&) = delete;

  /// Writes the bytes of the next tensor of the list.
  void add(const void* data);
  /// Call after the last tensor: fsyncs and closes.
  void finish();

 private:
  void write(const void* data, uint64_t size_bytes);

  Io& io_;
  std::string path_;
  std::vector<GgufTensor> tensors_;
  size_t next_ = 0;
  int fd_ = -1;
};

}  // namespace dsmoe
