#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

namespace dsmoe {

/// Recorded work of a device that is submitted again as a whole.
class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;
  /// Submits the recorded work again, on the same memory. Returns before the work is done.
  virtual void replay() = 0;
};

/// Interface of `dsmoe_cuda.so` to the program that opens it.
class DeviceModule {
 public:
  virtual ~DeviceModule() = default;
  /// Returns the number of devices that this process may use, at least 1. Throws Error with the
  /// reason, in one line, if there is none.
  virtual int64_t n_devices() const = 0;
  /// Selects device `index` for the tensors of the calling thread.
  virtual void select(int64_t index) = 0;
  /// Returns when the selected device has finished all submitted work.
  virtual void synchronize() = 0;
  /// Returns the peak of tensor memory on the selected device since the last reset, in bytes.
  virtual int64_t peak_memory_bytes() = 0;
  virtual void reset_peak_memory() = 0;
  /// Returns the memory of the selected device, in bytes.
  virtual int64_t total_memory_bytes() = 0;
  /// Records the work that `work` submits to the selected device, without executing it. `work` must
  /// run without a host sync; its tensors keep their memory as long as the graph exists. Run it
  /// once before, so that libraries are set up. Throws c10::Error if an operation cannot be
  /// recorded.
  virtual std::unique_ptr<DeviceGraph> record(const std::function<void()>& work) = 0;
};

/// Returns whether `dsmoe_cuda.so` is beside this program.
bool has_cuda_module();

/// Opens `dsmoe_cuda.so` beside this program, once. Call it before the process's first backward
/// pass, seed or CUDA query: torch looks for CUDA once. Throws Error if this build has no such
/// module, or a library that the module needs is missing.
DeviceModule& open_cuda_module();

/// Opens the module at `path` in the same way.
DeviceModule& open_device_module(const std::string& path);

/// Returns the opened module, or null.
DeviceModule* opened_device_module();

/// Registers the module; the module calls it while it is opened.
void register_device_module(DeviceModule& module);

}  // namespace dsmoe
