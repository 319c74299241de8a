#pragma once

#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include <cstdint>
#include <functional>

namespace c10d {
class Backend;
class Store;
}  // namespace c10d

namespace dsmoe {

/// Makes a backend for collectives from the store of that backend.
using MakeBackend =
    std::function<c10::intrusive_ptr<c10d::Backend>(c10::intrusive_ptr<c10d::Store> store,
                                                    int64_t rank,
                                                    int64_t size,
                                                    double timeout_seconds)>;

/// Collectives over tensors of an asynchronous device, such as NCCL over CUDA tensors.
struct Accelerator {
  c10::DeviceType device;
  MakeBackend make_backend;
  /// Returns when the device has finished all submitted work: only then is a collective known to
  /// have succeeded. Empty if the result of a collective is enough to wait for.
  std::function<void()> finish = {};
};

/// Registers an accelerator; a module calls it while it is opened.
void register_accelerator(Accelerator accelerator);

/// Returns the accelerator of an opened module. Throws Error for a device without one.
const Accelerator& accelerator_of(c10::DeviceType device);

}  // namespace dsmoe
