#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace dsmoe {

/// Parameters in the type of the products. They are cast once after each change, not once per use:
/// a training step casts a weight once, however many micro-batches it has. Not safe from two
/// threads at once.
class ComputeCopy {
 public:
  /// The parameters' values one below the other in `type`, without gradient; a single parameter of
  /// that type itself.
  at::Tensor values(const std::vector<at::Tensor>& parameters, at::ScalarType type);

  /// One parameter with a gradient path: what comes back is widened to its type.
  at::Tensor differentiable(const at::Tensor& parameter, at::ScalarType type);

 private:
  /// Tells one state of a parameter from the next.
  struct Source {
    const void* data;
    int64_t version;
    bool operator==(const Source&) const = default;
  };
  at::Tensor copy_;
  std::vector<Source> sources_;
};

}  // namespace dsmoe
