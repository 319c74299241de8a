#include "fuzz/live_bytes.h"

#include <malloc.h>

#include <algorithm>
#include <cstdlib>
#include <new>

namespace {

size_t live = 0;  // one thread allocates
size_t highest = 0;

}  // namespace

#if !defined(__SANITIZE_ADDRESS__)
void* operator new(size_t size) {
  void* memory = std::malloc(size);
  if (memory == nullptr) throw std::bad_alloc();
  live += malloc_usable_size(memory);
  highest = std::max(highest, live);
  return memory;
}
void operator delete(void* memory) noexcept {
  if (memory != nullptr) live -= malloc_usable_size(memory);
  std::free(memory);
}
void operator delete(void* memory, size_t) noexcept { operator delete(memory); }
#endif

namespace dsmoe {

LiveBytes::LiveBytes() : start_(live) { highest = live; }

size_t LiveBytes::peak() const { return highest > start_ ? highest - start_ : 0; }

}  // namespace dsmoe
