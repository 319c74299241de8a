#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

namespace dsmoe {

/// A read-only mapping of a file; bytes are read on access. The file must keep its size meanwhile.
class MappedFile {
 public:
  /// Throws Error if it cannot be opened or mapped.
  explicit MappedFile(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  const std::byte* data() const { return data_; }
  uint64_t size_bytes() const { return size_; }
  bool contains(const void* at) const {
    return at >= data_ && at < static_cast<const void*>(data_ + size_);
  }
  /// Releases the memory of the whole pages inside a range; the next access reads them again.
  void release(const void* begin, size_t size_bytes) const;

 private:
  const std::byte* data_ = nullptr;
  uint64_t size_ = 0;
};

}  // namespace dsmoe
