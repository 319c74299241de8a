#pragma once

#include <cstddef>
#include <cstdint>

namespace dsmoe {

/// Zeroed memory in pages of 2 MiB where the system has them: reading weights from small pages
/// costs a third of the bandwidth and more. Throws std::bad_alloc.
class LargeMemory {
 public:
  explicit LargeMemory(int64_t size_bytes);
  ~LargeMemory();
  LargeMemory(const LargeMemory&) = delete;
  LargeMemory& operator=(const LargeMemory&) = delete;

  std::byte* data() const { return data_; }

 private:
  void* mapping_;
  size_t mapping_bytes_;
  std::byte* data_;  // at a page boundary inside the mapping
};

}  // namespace dsmoe
