#pragma once

#include <c10/core/Device.h>

namespace dsmoe {

/// The device that tests of device kernels run on: the fake one with emulated kernels and a module
/// that records work by keeping it, or with
/// DSMOE_TEST_DEVICE=cuda in the environment the first GPU, whose module is at DSMOE_CUDA_MODULE.
/// Throws Error where that cannot be opened. To be called before the first backward pass.
c10::Device test_device();

/// Whether it is the fake one.
bool is_emulated();

}  // namespace dsmoe
