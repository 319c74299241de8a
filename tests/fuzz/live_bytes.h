#pragma once

#include <cstddef>

namespace dsmoe {

/// Bytes of `new` that are alive above those at its construction, at most. Counts nothing under the
/// address sanitizer, whose own allocator has to stay in place.
class LiveBytes {
 public:
  LiveBytes();
  size_t peak() const;

 private:
  size_t start_;
};

}  // namespace dsmoe
