#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace dsmoe {

/// Caches parameters in the type of the matrix products. A parameter is cast once after each
/// change, not once per use: a training step casts a weight once for all its micro-batches. Not
/// thread-safe.
class ComputeCopy {
 public:
  /// Returns the values of the parameters, concatenated along the rows, in `type` and without
  /// gradient; a single parameter that already has the type is returned itself.
  at::Tensor values(const std::vector<at::Tensor>& parameters, at::ScalarType type);

  /// Returns one parameter in `type` with a gradient path; its gradient is widened to the type of
  /// the parameter.
  at::Tensor differentiable(const at::Tensor& parameter, at::ScalarType type);

 private:
  /// Identifies one state of a parameter.
  struct Source {
    const void* data;
    int64_t version;
    bool operator==(const Source&) const = default;
  };
  at::Tensor copy_;
  std::vector<Source> sources_;
};

}  // namespace dsmoe
