#include "common/huge_pages.h"

#include <sys/mman.h>

#include <memory>
#include <new>

namespace dsmoe {
namespace {

constexpr size_t kPage = size_t{2} << 20;

}  // namespace

HugePages::HugePages(int64_t size_bytes) {
  const auto size = static_cast<size_t>(size_bytes);
  mapping_bytes_ = size + kPage;
  mapping_ =
      mmap(nullptr, mapping_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping_ == MAP_FAILED) throw std::bad_alloc();
  size_t space = mapping_bytes_;
  void* aligned = mapping_;
  data_ = static_cast<std::byte*>(std::align(kPage, size, aligned, space));
  // Advice only: the memory works without huge pages too. The remainder would waste a huge page.
  const size_t whole = size / kPage * kPage;
  if (whole > 0) madvise(data_, whole, MADV_HUGEPAGE);
  if (whole < size) madvise(data_ + whole, size - whole, MADV_NOHUGEPAGE);
}

HugePages::~HugePages() { munmap(mapping_, mapping_bytes_); }

}  // namespace dsmoe
