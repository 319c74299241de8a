#pragma once

#include <cstdint>

namespace dsmoe {

/// What `dsmoe_cuda.so` gives the program that opens it.
class DeviceModule {
 public:
  virtual ~DeviceModule() = default;
  /// Devices that this process may use, at least one. Throws Error saying in one line why there is
  /// none.
  virtual int64_t n_devices() const = 0;
  /// Makes device `index` the one that the calling thread's tensors go to.
  virtual void select(int64_t index) = 0;
  /// Returns when the selected device has finished what it was given.
  virtual void synchronize() = 0;
};

/// Whether `dsmoe_cuda.so` is beside this program.
bool has_cuda_module();

/// Opens `dsmoe_cuda.so` beside this program, once. It must happen before the first backward pass,
/// seed or question about CUDA of the process: torch looks for CUDA once. Throws Error where this
/// build has no such module, or what that needs is missing.
DeviceModule& open_cuda_module();

/// For the module, while it is being opened.
void register_device_module(DeviceModule& module);

}  // namespace dsmoe
