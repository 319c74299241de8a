#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace dsmoe {

/// Sees each matrix product of a measurement: its operations, wall seconds and processor seconds.
using ProductObserver = std::function<void(double flops, double wall_seconds, double cpu_seconds)>;

/// Multiplies square matrices of 1024 (8192 on a GPU) for a tenth of a second.
void measure_matrix_products(at::ScalarType dtype, at::Device device, const ProductObserver& see);

/// Matrix speed of a device now, as this process gets it, operations per second: the best of such
/// products.
double measure_matrix_speed(at::ScalarType dtype, at::Device device = at::kCPU);

}  // namespace dsmoe
