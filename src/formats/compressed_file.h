#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "common/io.h"

namespace dsmoe {

/// The content of a file that is plain, gzip or zstd, read from its start in bounded memory. The
/// first bytes decide the format, not the name; consecutive members form one content.
class CompressedFile {
 public:
  /// path  `-` is standard input
  /// Throws Error if the file is missing or not a regular one.
  CompressedFile(Io& io, const std::string& path);
  ~CompressedFile();
  CompressedFile(const CompressedFile&) = delete;
  CompressedFile& operator=(const CompressedFile&) = delete;

  /// Fills `out` with up to size bytes and returns how many, 0 only at the end. Throws Error naming
  /// the file if it cannot be read, is cut off or is damaged.
  size_t read(char* out, size_t size);

  uint64_t file_position() const;  ///< bytes of the file consumed, before decompression
  uint64_t file_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace dsmoe
