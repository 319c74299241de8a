#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace dsmoe {

/// Work of a device that was recorded once and is given to it again as a whole.
class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;
  /// Does the recorded work again, on the same memory. Returns before it is done.
  virtual void replay() = 0;
};

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
  /// Most that tensors have held at once on the selected device since the last reset, in bytes.
  virtual int64_t peak_memory_bytes() = 0;
  virtual void reset_peak_memory() = 0;
  /// Records what `work` gives the selected device, without doing it. `work` must not wait for the
  /// device; tensors that it makes stay where they are as long as the graph. Run it once before,
  /// so that libraries are set up. Throws c10::Error where something cannot be recorded.
  virtual std::unique_ptr<DeviceGraph> record(const std::function<void()>& work) = 0;
};

/// Whether `dsmoe_cuda.so` is beside this program.
bool has_cuda_module();

/// Opens `dsmoe_cuda.so` beside this program, once. It must happen before the first backward pass,
/// seed or question about CUDA of the process: torch looks for CUDA once. Throws Error where this
/// build has no such module, or what that needs is missing.
DeviceModule& open_cuda_module();

/// The same of the module at `path`.
DeviceModule& open_device_module(const std::string& path);

/// The module that was opened, or null.
DeviceModule* opened_device_module();

/// For the module, while it is being opened.
void register_device_module(DeviceModule& module);

}  // namespace dsmoe
