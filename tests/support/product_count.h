#pragma once

#include <cstdint>

namespace dsmoe {

/// Counts the operations of this thread's matrix products during its lifetime, as 2 m n k. One at a
/// time.
class ProductCount {
 public:
  ProductCount();
  ~ProductCount();
  ProductCount(const ProductCount&) = delete;
  ProductCount& operator=(const ProductCount&) = delete;

  double operations() const;

 private:
  uint64_t handle_;
};

}  // namespace dsmoe
