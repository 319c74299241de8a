#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>

namespace dsmoe {

/// Makes a --device ready: `cpu`, `cuda`, or `auto`, which is `cuda` where the module is built and
/// finds a GPU, else the CPU, with a line in the log that says why where the module is built. For
/// `cuda` it opens the module and selects device `index`. Call before the first tensor. Throws
/// Error saying in one line what is missing.
c10::Device open_device(const std::string& name, int64_t index = 0);

}  // namespace dsmoe
