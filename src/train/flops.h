#pragma once

#include <ATen/core/Tensor.h>

namespace dsmoe {

/// Matrix speed of a device now, as this process gets it, operations per second: the best of some
/// square products of 1024 (8192 on a GPU), a tenth of a second in all.
double measure_matrix_speed(at::ScalarType dtype, at::Device device = at::kCPU);

}  // namespace dsmoe
