#pragma once

#include <ATen/core/Tensor.h>

namespace dsmoe {

/// Matrix speed of this process now, operations per second: the best of some square products of
/// 1024, a tenth of a second in all.
double measure_matrix_speed(at::ScalarType dtype);

}  // namespace dsmoe
