#pragma once

#include <cstddef>

namespace dsmoe {

/// Peak of live bytes of `new` since construction, above those at construction. Counts nothing
/// under the address sanitizer, whose own allocator has to stay in place.
class LiveBytes {
 public:
  LiveBytes();
  size_t peak() const;

 private:
  size_t start_;
};

}  // namespace dsmoe
