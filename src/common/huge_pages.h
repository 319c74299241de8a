#pragma once

#include <cstddef>
#include <cstdint>

namespace dsmoe {

/// Zeroed memory, in huge pages (2 MiB) if the system provides them. Reading weights from pages of
/// 4 KiB costs a third of the bandwidth or more. Throws std::bad_alloc.
class HugePages {
 public:
  explicit HugePages(int64_t size_bytes);
  ~HugePages();
  HugePages(const HugePages&) = delete;
  HugePages& operator=(const HugePages&) = delete;

  std::byte* data() const { return data_; }

 private:
  void* mapping_;
  size_t mapping_bytes_;
  std::byte* data_;  // aligned to a huge page inside the mapping
};

}  // namespace dsmoe
